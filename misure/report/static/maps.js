"use strict";
/* Decodes the saved maps when they are needed, and draws them. */
{
  const { levels, colours, cards } = misure.read("gallery-cards");
  let pictures = null;
  const ramp = colours.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  const kept = new Map();
  const mostKept = 150;
  const scratch = document.createElement("canvas");
  const pen = scratch.getContext("2d", { willReadFrequently: true });
  const heatOpacity = 0.7;
  const outline = {
    sufficient: { colour: "#e69f00", dash: [7, 4] },
    prediction: { colour: "#56b4e9", dash: [] },
    truth: { colour: "#f0e442", dash: [2, 3] },
  };

  /* RGBA bytes of a picture, exactly as they were written. */
  const decode = async (name) => {
    const image = new Image();
    pictures ??= misure.read("gallery-pictures");
    image.src = pictures[name];
    await image.decode();
    [scratch.width, scratch.height] = [image.naturalWidth, image.naturalHeight];
    pen.drawImage(image, 0, 0);
    return pen.getImageData(0, 0, scratch.width, scratch.height).data;
  };

  const decoded = (name) => {
    const found = kept.get(name) ?? decode(name);
    kept.delete(name);
    kept.set(name, found);
    if (kept.size > mostKept) kept.delete(kept.keys().next().value);
    return found;
  };

  const first = (rgba) => rgba.filter((_, i) => i % 4 === 0);

  const mapsOf = async (card) => {
    const names = ["image", "region", "sufficient_region", "truth", "saliency"];
    const bytes = await Promise.all(names.map((name) => (card[name] === null ? null : decoded(card[name]))));
    const [image, ...rest] = bytes;
    const [region, sufficient, truth, saliency] = rest.map((rgba) => rgba && first(rgba));
    return { image, region, sufficient, truth, saliency };
  };

  /* How many pixels lie above a step. */
  const above = (saliency, step) => saliency.reduce((n, level) => n + (level > step ? 1 : 0), 0);

  /* The colours of every pixel, without outlines. */
  const paint = (card, maps, layers, step) => {
    const painted = new ImageData(card.width, card.height);
    const shows = layers.image && maps.image;
    for (let i = 0; i < card.width * card.height; i += 1) {
      const dim = layers.sufficient && maps.sufficient && !maps.sufficient[i] ? 0.35 : 1;
      const heat = layers.heat && maps.saliency[i] > step ? (shows ? heatOpacity : 1) : 0;
      for (let c = 0; c < 3; c += 1) {
        const below = dim * (shows ? maps.image[4 * i + c] : layers.image ? 96 : 24);
        painted.data[4 * i + c] = heat * ramp[maps.saliency[i]][c] + (1 - heat) * below;
      }
      painted.data[4 * i + 3] = 255;
    }
    return painted;
  };

  /* The edges of a mask's pixels, which stay sharp at every size; the picture's border is no edge. */
  const edges = (card, mask, zoom) => {
    const path = new Path2D();
    const { width, height } = card;
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const here = mask[y * width + x] > 0;
        if (x + 1 < width && here !== mask[y * width + x + 1] > 0) {
          path.moveTo((x + 1) * zoom, y * zoom);
          path.lineTo((x + 1) * zoom, (y + 1) * zoom);
        }
        if (y + 1 < height && here !== mask[(y + 1) * width + x] > 0) {
          path.moveTo(x * zoom, (y + 1) * zoom);
          path.lineTo((x + 1) * zoom, (y + 1) * zoom);
        }
      }
    }
    return path;
  };

  const stroke = (context, path, { colour, dash }, width) => {
    context.setLineDash([]);
    context.lineWidth = 2.2 * width;
    context.strokeStyle = "rgb(0 0 0 / 65%)";
    context.stroke(path);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.setLineDash(dash);
    context.stroke(path);
  };

  const draw = (canvas, card, maps, layers, step) => {
    const zoom = Math.max(1, Math.round(448 / Math.max(card.width, card.height)));
    [canvas.width, canvas.height] = [card.width * zoom, card.height * zoom];
    [scratch.width, scratch.height] = [card.width, card.height];
    pen.putImageData(paint(card, maps, layers, step), 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
    const masks = { sufficient: maps.sufficient, truth: maps.truth, prediction: maps.region };
    for (const [name, mask] of Object.entries(masks)) {
      if (layers[name] && mask) stroke(context, edges(card, mask, zoom), outline[name], 2);
    }
  };

  Object.assign(misure, { levels, colours, cards, mapsOf, above, draw });
}
