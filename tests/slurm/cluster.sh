#!/usr/bin/env bash
# A SLURM cluster of two nodes with two pretended GPUs each and accounting, on one Debian machine; see README.md.
# usage, as root: cluster.sh start|stop FOLDER
set -eu
mkdir -p "$2"; D=$(cd "$2" && pwd)
if [ "$1" = stop ]; then
  for p in slurmd-n1 slurmd-n2 slurmctld slurmdbd munged database; do kill "$(cat "$D/run/$p.pid" 2>/dev/null)" 2>/dev/null || true; done
  exit
fi
mkdir -p "$D"/{run,log,state,spool-n1,spool-n2}
until_answered() { for _ in $(seq 120); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done; echo "no answer: $*" >&2; exit 1; }
node() { echo "NodeName=$1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$2 CPUs=4 CoresPerSocket=4 RealMemory=4000 Gres=gpu:2"; }

cat > "$D/slurm.conf" <<CONF
ClusterName=toy
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool-%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
MinJobAge=30
KillWait=3
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
JobAcctGatherType=jobacct_gather/none
$(node n1 17001)
$(node n2 17002)
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
printf 'NodeName=n%s Name=gpu File='"$D"'/gpu[0-1]\n' 1 2 > "$D/gres.conf"
for i in 0 1; do [ -e "$D/gpu$i" ] || mknod "$D/gpu$i" c 1 3; done
install -m 600 /dev/stdin "$D/slurmdbd.conf" <<CONF
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StoragePass=toy
StorageLoc=slurm_acct_db
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
CONF

database() { mariadb --socket="$D/run/database.sock" -e "$1"; }
[ -d "$D/data" ] || mariadb-install-db --no-defaults --user=root --datadir="$D/data" --auth-root-authentication-method=socket >"$D/log/install.log" 2>&1
mariadbd --no-defaults --user=root --datadir="$D/data" --socket="$D/run/database.sock" --pid-file="$D/run/database.pid" \
  --bind-address=127.0.0.1 --port=33306 >"$D/log/database.log" 2>&1 &
until_answered database "select 1"
database "create database if not exists slurm_acct_db; create user if not exists 'slurm'@'127.0.0.1' identified by 'toy'; grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1'"
install -d -m 755 /run/munge
chown -R root: /etc/munge /var/lib/munge /var/log/munge
munged --force --pid-file="$D/run/munged.pid"
export SLURM_CONF="$D/slurm.conf"
SLURMDBD_CONF="$D/slurmdbd.conf" slurmdbd
until_answered bash -c "echo > /dev/tcp/127.0.0.1/16819"
sacctmgr -i add cluster toy >/dev/null 2>&1 || true
slurmctld -c; slurmd -N n1; slurmd -N n2
until_answered bash -c '[ "$(sinfo -h -N -o %T | sort -u)" = idle ]'
echo "export SLURM_CONF=$D/slurm.conf"
