"use strict";
/* What the other scripts share. Data reaches the page as JSON and as text, never as markup. */
const misure = {};

misure.read = (id) => JSON.parse(document.getElementById(id).textContent);

misure.make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/* Storage may be forbidden, as for files in some browsers: the page then forgets, and works. */
misure.remember = (name, value) => {
  try {
    localStorage.setItem(`misure-${name}`, value);
  } catch {
    return;
  }
};

misure.remembered = (name) => {
  try {
    return localStorage.getItem(`misure-${name}`);
  } catch {
    return null;
  }
};

/* A number with three decimals or three significant digits, a dash for none. */
misure.number = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Math.abs(value) < 100 ? value.toFixed(3) : Number(value.toPrecision(4)).toString();
};

misure.webLink = (href) => /^https?:\/\//.test(href);
