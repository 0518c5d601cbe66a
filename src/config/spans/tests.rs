use super::{MAX_DEPTH, Outline, Places, Value, read};

fn outline(yaml: &str) -> Outline {
    let (mut documents, fault) = read(yaml);
    assert_eq!(fault, []);
    documents.remove(0).outline
}

#[test]
fn every_field_has_its_line_and_column() {
    let outline = outline(
        "metadata:\n  labels:\n    a.b/c: x\nspec:\n  http:\n  - route:\n    - destination: {host: cart}\n",
    );
    assert_eq!(outline.locate("metadata.labels[\"a.b/c\"]"), (3, 5));
    assert_eq!(outline.locate("spec.http[0].route[0].destination.host"), (7, 21));
    assert_eq!(outline.locate("spec.http[0]"), (6, 5));
    assert_eq!(outline.text("spec.http[0].route[0].destination.host"), Some("cart"));
}

#[test]
fn an_absent_field_has_the_place_of_its_nearest_ancestor() {
    let outline = outline("spec:\n  http:\n  - timeout: 3s\n");
    assert_eq!(outline.locate("spec.http[0].route[1].weight"), outline.locate("spec.http[0]"));
    assert_eq!(outline.locate("nothing"), (1, 1));
}

#[test]
fn documents_are_split_and_keep_their_lines() {
    let text = "# first\n---\na: 1\n---\n---\n# ä\n  b: 2\n  c: 3\n...\n---\nd: ö\n";
    let (documents, fault) = read(text);
    assert_eq!(fault, []);
    let seen: Vec<_> = documents.iter().map(|d| d.outline.position(Outline::ROOT)).collect();
    assert_eq!(seen, [(3, 1), (7, 3), (11, 1)]);
    assert_eq!(documents[1].outline.locate("c"), (8, 3));
}

#[test]
fn duplicate_keys_are_refused_in_every_mapping() {
    let (documents, _) = read("spec:\n  a: {x: 1, y: 2, x: 3}\n  b:\n  - c: 1\n    c: 2\n");
    let faults: Vec<_> = documents[0].faults.iter().map(|f| (f.code, f.field.as_str(), f.line)).collect();
    assert_eq!(faults, [("duplicate-key", "spec.a.x", 2), ("duplicate-key", "spec.b[0].c", 5)]);
}

#[test]
fn a_missing_separator_is_recognised() {
    let (documents, _) = read("apiVersion: v1\nkind: A\napiVersion: v1\nkind: B\n");
    let fault = &documents[0].faults[0];
    assert_eq!((fault.code, fault.line), ("missing-separator", 3));
    assert!(fault.hint.contains("`---`"), "{}", fault.hint);
}

#[test]
fn a_markdown_fence_is_recognised() {
    let (_, fault) = read("a: 1\n```yaml\nb: 2\n");
    assert_eq!((fault[0].fault.code, fault[0].fault.line), ("markdown-fence", 2));
}

#[test]
fn reading_goes_on_behind_a_document_that_is_broken() {
    let text = "a: 1\n---\nb: [1\nb: 2\n---\nc: 3\n--- \nd: 1\nd: 2\ne: {\n---\nf: 1\n";
    let (documents, broken) = read(text);
    let seen: Vec<_> = documents.iter().map(|d| d.outline.position(Outline::ROOT)).collect();
    assert_eq!(seen, [(1, 1), (6, 1), (12, 1)]);
    let broken: Vec<_> = broken
        .iter()
        .map(|one| (one.fault.code, one.line, &text[one.text.clone()], one.faults.len()))
        .collect();
    assert_eq!(
        broken,
        [("syntax", 2, "---\nb: [1\nb: 2\n", 0), ("syntax", 7, "--- \nd: 1\nd: 2\ne: {\n", 1)],
        "what was found before the error is kept"
    );
}

#[test]
fn the_number_of_breaks_is_bounded() {
    let (documents, broken) = read(&"---\na: [\n".repeat(1000));
    assert!(documents.is_empty() && broken.len() == 100, "{}", broken.len());
    assert_eq!(broken[99].text.end, 9000, "the last one takes the rest");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    assert_eq!(read(&text).1[0].fault.code, "document-too-large");
}

#[test]
fn an_alias_counts_as_what_it_stands_for() {
    let outline = outline("a: &x {b: 1}\nc: *x\n");
    assert_eq!(outline.locate("c"), (2, 1));
    assert_eq!(outline.text("c.b"), Some("1"));
    assert_eq!(read("a: &x [*x]\n").1[0].fault.code, "recursive-alias");
}

#[test]
fn depth_is_bounded() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(read(&deep(MAX_DEPTH)).1, []);
    assert_eq!(read(&deep(MAX_DEPTH + 1)).1[0].fault.code, "too-deep");
    assert!(!read(&deep(100_000)).1.is_empty());
    let half = MAX_DEPTH / 2;
    let twice = |more: usize| {
        format!("- &a {}\n- {}*a{}\n", deep(half), "[".repeat(half - 1 + more), "]".repeat(half - 1 + more))
    };
    assert_eq!(read(&twice(0)).1, []);
    assert_eq!(read(&twice(1)).1[0].fault.code, "too-deep");
}

#[test]
fn json_is_yaml() {
    let outline = outline("{\n  \"kind\": \"Service\",\n  \"spec\": {\"ports\": [{\"port\": 80}]}\n}\n");
    assert_eq!(outline.text("spec.ports[0].port"), Some("80"));
    assert!(matches!(outline.value(Outline::ROOT), Some(Value::Mapping(entries)) if entries.len() == 2));
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_read() {
    assert_eq!(outline("\u{feff}a: 1\r\nb: 2\r\n").locate("b"), (2, 1));
}

#[test]
fn the_places_that_are_kept_are_those_of_the_outline() {
    let outline = outline(
        "metadata:\n  labels: &l\n    a.b/c: x\nspec:\n  selector: *l\n  http:\n  - timeout: 3s\n  - route:\n    - destination: {host: cart}\n",
    );
    let places = Places::new(&outline);
    for path in [
        "",
        "metadata",
        "metadata.labels[\"a.b/c\"]",
        "spec.selector",
        "spec.selector[\"a.b/c\"]",
        "spec.http[0].timeout",
        "spec.http[1].route[0].destination.host",
        "spec.http[1].route[7].weight",
        "spec.http.route",
        "nothing",
    ] {
        assert_eq!(places.locate(path), outline.locate(path), "{path}");
    }
    assert_eq!(Places::default().locate("spec"), (1, 1));
}
