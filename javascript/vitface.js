// What the page does by itself: asks how far a running job is, moves the before/after handle, and sends pictures of the
// WebUI's galleries to the Check tab. No logic of faces here.
(function () {
    "use strict";
    if (window.vitfaceLoaded) return;
    window.vitfaceLoaded = true;

    const EVERY_MS = 2000;

    function root() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function visible(element) {
        return element.offsetParent !== null && !document.hidden;
    }

    function click(element) {
        const button = element && (element.tagName === "BUTTON" ? element : element.querySelector("button"));
        if (button) button.click();
    }

    function poll() {
        root().querySelectorAll(".vitface-live").forEach(function (live) {
            const panel = live.closest(".vitface-panel");
            if (panel && visible(live)) click(panel.querySelector(".vitface-poll"));
        });
    }

    function slide(event) {
        const slider = event.target.closest && event.target.closest(".vitface-slider");
        if (slider && event.target.type === "range") slider.style.setProperty("--cut", event.target.value + "%");
    }

    // "Send to ViTFace": beside the WebUI's own send-to buttons
    function shownPicture(tab) {
        const gallery = root().querySelector("#" + tab + "_gallery");
        if (!gallery) return null;
        const image = gallery.querySelector(".preview img, .thumbnail-item.selected img, .thumbnail-item img, img");
        return image ? image.src : null;
    }

    async function send(tab) {
        const source = shownPicture(tab);
        const input = root().querySelector("#vitface-inspect-input-drop input[type=file]");
        if (!source || !input) return;
        const data = await (await fetch(source)).blob();
        const files = new DataTransfer();
        files.items.add(new File([data], tab + ".png", {type: data.type || "image/png"}));
        open("#tabs", "tab_vitface");
        open("#vitface-tabs", "vitface-tab-check");
        input.files = files.files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    }

    // Buttons of tabs have no names of their own but what is written on them, and that may be translated: found by their place
    function open(tabs, panel) {
        const panels = Array.from(root().querySelectorAll(tabs + " > .tabitem"));
        const place = panels.findIndex(function (one) { return one.id === panel; });
        click(root().querySelectorAll(tabs + " > .tab-nav > button")[place]);
    }

    function addButtons() {
        ["txt2img", "img2img"].forEach(function (tab) {
            const row = root().querySelector("#image_buttons_" + tab + " .form") || root().querySelector("#image_buttons_" + tab);
            if (!row || row.querySelector(".vitface-send")) return;
            const model = row.querySelector("button");
            if (!model) return;
            const button = document.createElement("button");
            button.className = model.className + " vitface-send";
            button.title = "Send the picture to ViTFace's Check tab";
            button.textContent = "\u{1F50E}";
            button.addEventListener("click", function () { send(tab); });
            row.appendChild(button);
        });
    }

    // Languages of the page of its own (window.vitfaceTexts); the WebUI translates by itself, from the same file
    const texts = window.vitfaceTexts || {};
    const NAMES = ["placeholder", "title", "aria-label"];
    const originals = new WeakMap(); // of text nodes and elements: what was said before, and what we made of it
    let language = "en";

    function translated(owner, name, now) {
        const known = originals.get(owner) || {};
        const before = known[name] && known[name].made === now ? known[name].original : now;
        const found = (texts[language] || {})[before.trim()];
        const made = found ? before.replace(before.trim(), function () { return found; }) : before;
        known[name] = {original: before, made: made};
        originals.set(owner, known);
        return made;
    }

    function translate(node) {
        if (node.nodeType === Node.TEXT_NODE) {
            if (!node.nodeValue.trim() || /^(SCRIPT|STYLE|TEXTAREA)$/.test((node.parentElement || {}).tagName)) return;
            const made = translated(node, "text", node.nodeValue);
            if (made !== node.nodeValue) node.nodeValue = made;
        } else if (node.nodeType === Node.ELEMENT_NODE && node.id !== "vitface-language") {
            NAMES.forEach(function (name) {
                const now = node.getAttribute(name);
                if (!now) return;
                const made = translated(node, name, now);
                if (made !== now) node.setAttribute(name, made);
            });
            node.childNodes.forEach(translate);
        }
    }

    function speak(name) {
        language = name;
        document.documentElement.lang = name;
        translate(document.body);
    }

    function offer() {
        const note = document.querySelector("#vitface-note .vitface-note");
        if (!note || document.querySelector("#vitface-language")) return;
        const choice = document.createElement("select");
        choice.id = "vitface-language";
        choice.setAttribute("aria-label", "Language / 言語");
        [["en", "English"], ["ja", "日本語"]].forEach(function (one) { choice.add(new Option(one[1], one[0])); });
        choice.value = language;
        choice.addEventListener("change", function () {
            window.localStorage.setItem("vitface-language", choice.value);
            speak(choice.value);
        });
        note.prepend(choice);
    }

    function startSpeaking() {
        const own = (navigator.language || "en").startsWith("ja") ? "ja" : "en";
        new MutationObserver(function (changes) {
            offer();
            changes.forEach(function (change) {
                if (change.type === "childList") change.addedNodes.forEach(translate);
                else translate(change.target);
            });
        }).observe(document.body, {subtree: true, childList: true, characterData: true, attributeFilter: NAMES});
        speak(window.localStorage.getItem("vitface-language") || own);
        offer();
    }

    if (window.vitfaceTexts) {
        if (document.body) startSpeaking();
        else document.addEventListener("DOMContentLoaded", startSpeaking);
    }

    document.addEventListener("input", slide, true);
    window.setInterval(poll, EVERY_MS);
    if (typeof onUiLoaded === "function") onUiLoaded(addButtons);
    else if (typeof onUiUpdate === "function") onUiUpdate(addButtons);
})();
