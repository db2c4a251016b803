(function () {
  var table = document.getElementById("runs"), body = table.tBodies[0], rows = Array.from(body.rows);
  var find = document.getElementById("find"), sort = document.getElementById("sort"), shown = document.getElementById("shown");
  var heads = Array.from(table.tHead.rows[0].cells);
  function order(column, down) {
    heads.forEach(function (one) { one.removeAttribute("aria-sort"); });
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    sort.value = column + (down ? "d" : "");
    rows.sort(function (a, b) {
      var x = a.cells[column].dataset.key, y = b.cells[column].dataset.key;
      var ahead = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
      return down ? -ahead : ahead;
    }).forEach(function (row) { body.appendChild(row); });
  }
  function filter() {
    var words = find.value.toLowerCase().split(/\s+/).filter(Boolean), n = 0;
    rows.forEach(function (row) {
      var text = row.dataset.text || (row.dataset.text = row.textContent.toLowerCase());
      row.hidden = !words.every(function (word) { return text.includes(word); });
      n += !row.hidden;
    });
    shown.textContent = words.length ? n + " of " + rows.length + " shown" : "";
  }
  document.querySelector(".find").hidden = false;
  heads.forEach(function (head, column) {
    var button = head.querySelector("button");
    if (!button) return;
    button.disabled = false;
    button.addEventListener("click", function () { order(column, head.getAttribute("aria-sort") === "ascending"); });
  });
  sort.addEventListener("change", function () { order(parseInt(sort.value), sort.value.endsWith("d")); });
  find.addEventListener("input", filter);
  body.addEventListener("click", function (event) {
    var tag = event.target.closest(".tag");
    if (!tag) return;
    var words = find.value.split(/\s+/).filter(Boolean), word = tag.textContent.trim();
    word.split(/\s+/).forEach(function (one) { if (words.indexOf(one) < 0) words.push(one); });
    find.value = words.join(" ");
    filter();
    find.focus();
  });
  filter();
  document.querySelectorAll(".wide").forEach(function (one) { if (one.scrollWidth > one.clientWidth + 1) one.tabIndex = 0; });
})();
