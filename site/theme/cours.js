// Replier ou déplier tout le code d'une page ; tout déplier pour imprimer.
document.addEventListener("DOMContentLoaded", () => {
  const cells = document.querySelectorAll("details.above-input");
  const heading = document.querySelector("article h1");
  if (cells.length && heading) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "bouton-code";
    const label = () => { button.textContent = cells[0].open ? "Masquer le code" : "Afficher le code"; };
    button.addEventListener("click", () => {
      const open = !cells[0].open;
      cells.forEach((cell) => { cell.open = open; });
      label();
    });
    label();
    heading.before(button);
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((block) => { block.open = true; });
  });
});
