// Not a module: it runs before the page is painted, so that the chosen theme does not flash up as the other one.
(() => {
  const NAME = "dcvideogen.theme";
  const THEMES = ["auto", "light", "dark"];

  function chosen() {
    try {
      const theme = localStorage.getItem(NAME);
      return THEMES.includes(theme) ? theme : "auto";
    } catch {
      return "auto"; // a browser that keeps nothing
    }
  }

  function show(theme) {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
  }

  show(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    show(chosen());
    document.getElementById("theme").addEventListener("click", () => {
      const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem(NAME, theme);
      } catch {
        // it lasts until the next reload
      }
      show(theme);
    });
  });
})();
