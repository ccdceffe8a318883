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
        open("#tabs", "ViTFace");
        open("#vitface-tabs", "Check");
        input.files = files.files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    }

    function open(tabs, name) {
        const buttons = root().querySelectorAll(tabs + " > .tab-nav > button, " + tabs + " > div > [role=tab]");
        buttons.forEach(function (button) {
            if (button.textContent.trim() === name) button.click();
        });
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

    document.addEventListener("input", slide, true);
    window.setInterval(poll, EVERY_MS);
    if (typeof onUiLoaded === "function") onUiLoaded(addButtons);
    else if (typeof onUiUpdate === "function") onUiUpdate(addButtons);
})();
