"""COCO with the 20 classes of Pascal VOC."""
