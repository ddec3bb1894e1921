// Turns each group of [data-tabs] > .tab into tabs; without JavaScript, and in print, all of them are shown in turn.
for (const group of document.querySelectorAll("[data-tabs]")) {
  const tabs = [...group.querySelectorAll(":scope > .tab")];
  const bar = document.createElement("div");
  bar.className = "tab-bar";
  bar.setAttribute("role", "tablist");
  const show = (chosen) => tabs.forEach((tab, index) => {
    const on = tab === chosen;
    tab.classList.toggle("hidden", !on);
    bar.children[index].setAttribute("aria-selected", on);
    bar.children[index].tabIndex = on ? 0 : -1;
  });
  tabs.forEach((tab, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = tab.dataset.title;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", tab.id);
    tab.setAttribute("role", "tabpanel");
    button.addEventListener("click", () => show(tab));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (index + step + tabs.length) % tabs.length;
      show(tabs[next]);
      bar.children[next].focus();
    });
    bar.append(button);
  });
  group.prepend(bar);
  group.classList.add("ready");
  show(tabs.find((tab) => "#" + tab.id === location.hash) ?? tabs[0]);
}
