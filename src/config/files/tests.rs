use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::{Store, Update, Watcher};
use crate::config::decode::Strictness;

fn service(name: &str, port: u32) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn store(folder: &TempDir) -> Store {
    Store::new(vec![folder.path().to_owned()], Strictness::default())
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Names and first ports of what holds.
fn holds(update: &Update) -> Vec<(String, u16)> {
    update
        .resources
        .iter()
        .map(|resource| {
            let crate::config::resources::Spec::Service(spec) = &resource.spec else { panic!() };
            (resource.key.name.to_string(), spec.ports[0].port)
        })
        .collect()
}

fn list(all: &[(&str, u16)]) -> Vec<(String, u16)> {
    all.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
}

#[test]
fn an_invalid_object_keeps_its_own_old_version_and_the_rest_goes_on() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &(service("a", 1) + &service("b", 1)));
    let mut store = store(&folder);
    assert_eq!(holds(&store.reload()), list(&[("a", 1), ("b", 1)]));
    write(&folder, "a.yaml", &(service("a", 0) + &service("b", 2) + &service("c", 0)));
    let update = store.reload();
    assert_eq!(holds(&update), list(&[("a", 1), ("b", 2)]));
    let rejected: Vec<_> =
        update.rejected.iter().map(|r| (&*r.key.as_ref().unwrap().name, r.kept_old)).collect();
    assert_eq!(rejected, [("a", true), ("c", false)]);
    assert!(update.rejected[0].message.contains("spec.ports[0].port"), "{:?}", update.rejected);
}

#[test]
fn a_file_that_does_not_parse_keeps_every_object_it_last_held() {
    let folder = TempDir::new().unwrap();
    let broken = write(&folder, "a.yaml", &(service("a", 1) + &service("b", 1)));
    write(&folder, "c.yaml", &service("c", 1));
    let mut store = store(&folder);
    store.reload();
    fs::write(&broken, service("a", 2) + "---\nx: [").unwrap();
    write(&folder, "c.yaml", &service("c", 2));
    let update = store.reload();
    assert_eq!(holds(&update), list(&[("a", 1), ("b", 1), ("c", 2)]));
    assert_eq!(update.unreadable, [Arc::from(broken.as_path())]);
    assert!(update.findings.iter().any(|finding| finding.code == "syntax"));
}

#[test]
fn a_document_without_identity_loses_no_object() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &(service("a", 1) + &service("b", 1)));
    let mut store = store(&folder);
    store.reload();
    write(&folder, "a.yaml", &(service("a", 2) + "---\nkind: Service\n"));
    assert_eq!(holds(&store.reload()), list(&[("a", 2), ("b", 1)]));
}

#[test]
fn a_removed_object_is_gone_and_a_vanished_folder_is_not() {
    let folder = TempDir::new().unwrap();
    write(&folder, "x/a.yaml", &service("a", 1));
    write(&folder, "x/b.yaml", &service("b", 1));
    let mut store = Store::new(vec![folder.path().join("x")], Strictness::default());
    store.reload();
    fs::remove_file(folder.path().join("x/b.yaml")).unwrap();
    assert_eq!(holds(&store.reload()), list(&[("a", 1)]));
    fs::rename(folder.path().join("x"), folder.path().join("y")).unwrap();
    let update = store.reload();
    assert_eq!(holds(&update), list(&[("a", 1)]));
    assert_eq!(update.unreadable.len(), 1);
}

#[test]
fn of_two_definitions_the_one_that_held_before_holds() {
    let folder = TempDir::new().unwrap();
    write(&folder, "m.yaml", &service("a", 1));
    let mut store = store(&folder);
    store.reload();
    write(&folder, "b.yaml", &service("a", 2));
    let update = store.reload();
    assert_eq!(holds(&update), list(&[("a", 1)]));
    let finding = update.findings.iter().find(|finding| finding.code == "duplicate-object").unwrap();
    assert!(
        finding.place.as_ref().unwrap().file.ends_with("b.yaml") && finding.message.contains("m.yaml:2:1"),
        "{finding}"
    );
    let first = Store::new(vec![folder.path().to_owned()], Strictness::default()).reload();
    assert_eq!(holds(&first), list(&[("a", 2)]), "at first the first in the order of paths");
}

#[test]
fn a_second_definition_does_not_take_over_while_the_first_cannot_be_read() {
    let folder = TempDir::new().unwrap();
    write(&folder, "m.yaml", &service("a", 1));
    let mut store = store(&folder);
    store.reload();
    write(&folder, "m.yaml", "x: [");
    write(&folder, "b.yaml", &service("a", 2));
    assert_eq!(holds(&store.reload()), list(&[("a", 1)]));
}

#[test]
fn unchanged_objects_are_the_same_and_unchanged_content_is_no_generation() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &service("a", 1));
    write(&folder, "b.yaml", &service("b", 1));
    let mut store = store(&folder);
    let first = store.reload();
    assert!(Arc::ptr_eq(&first, &store.reload()));
    write(&folder, "b.yaml", &service("b", 2));
    let second = store.reload();
    assert_eq!((first.generation, second.generation), (1, 2));
    assert!(Arc::ptr_eq(&first.resources[0], &second.resources[0]));
    assert!(!Arc::ptr_eq(&first.resources[1], &second.resources[1]));
    write(&folder, "a.yaml", &format!("# moved\n{}", service("a", 1)));
    let third = store.reload();
    assert_eq!(first.resources[0], third.resources[0]);
    assert_eq!(third.resources[0].place("spec.ports[0]").line, 6, "an object that moved has its new place");
}

#[test]
fn a_file_that_did_not_change_keeps_what_was_found_in_it() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &(service("a", 1) + &service("bad", 0)));
    let mut store = store(&folder);
    let first = store.reload();
    write(&folder, "b.yaml", &service("b", 1));
    let second = store.reload();
    assert_eq!(first.findings, second.findings);
    assert_eq!(first.rejected, second.rejected);
    assert!(Arc::ptr_eq(&first.resources[0], &second.resources[0]));
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    let third = store.reload();
    assert!(third.findings.is_empty() && holds(&third) == list(&[("b", 1)]));
    write(&folder, "a.yaml", &service("a", 2));
    assert_eq!(holds(&store.reload()), list(&[("a", 2), ("b", 1)]));
}

#[test]
fn resources_come_sorted_whatever_the_files() {
    let folder = TempDir::new().unwrap();
    write(&folder, "1.yaml", &service("z", 1));
    write(
        &folder,
        "sub/2.json",
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}"#,
    );
    write(&folder, "notes.txt", "not: [yaml");
    write(&folder, ".hidden.yaml", "not: [yaml");
    write(&folder, "a.yaml~", "not: [yaml");
    write(&folder, ".a.yaml.swp", "not: [yaml");
    let update = store(&folder).reload();
    assert_eq!(holds(&update), list(&[("a", 1), ("z", 1)]));
    assert!(update.unreadable.is_empty() && update.findings.is_empty());
}

#[test]
fn an_absent_path_is_unreadable() {
    let update = Store::new(vec![PathBuf::from("/nowhere/at/all")], Strictness::default()).reload();
    assert_eq!(update.unreadable, [Arc::from(Path::new("/nowhere/at/all"))]);
}

/// A ConfigMap volume as the kubelet makes it: entries link into `..data`, which links to the current version.
fn swap(folder: &TempDir, version: &str, text: &str) {
    write(folder, &format!("..{version}/a.yaml"), text);
    let data = folder.path().join("..data");
    symlink(format!("..{version}"), folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), data).unwrap();
    let entry = folder.path().join("a.yaml");
    if !entry.exists() {
        symlink("..data/a.yaml", entry).unwrap();
    }
}

#[test]
fn a_config_map_volume_is_read_once() {
    let folder = TempDir::new().unwrap();
    swap(&folder, "2026_1", &service("a", 1));
    let mut store = store(&folder);
    assert_eq!(holds(&store.reload()), list(&[("a", 1)]));
    swap(&folder, "2026_2", &service("a", 2));
    let update = store.reload();
    assert_eq!(holds(&update), list(&[("a", 2)]));
    assert!(update.findings.is_empty(), "{:?}", update.findings);
}

async fn soon(watcher: &mut Watcher) {
    tokio::time::timeout(Duration::from_secs(8), watcher.changed())
        .await
        .expect("the change is noticed before the poll");
}

#[tokio::test]
async fn swaps_renames_writes_and_new_folders_are_noticed_every_time() {
    let folder = TempDir::new().unwrap();
    swap(&folder, "2026_1", &service("a", 1));
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    for version in 2..4 {
        swap(&folder, &format!("2026_{version}"), &service("a", version));
        soon(&mut watcher).await;
    }
    for port in 1..3 {
        let fresh = write(&folder, ".b.tmp", &service("b", port));
        fs::rename(fresh, folder.path().join("b.yaml")).unwrap();
        soon(&mut watcher).await;
    }
    write(&folder, "sub/c.yaml", &service("c", 1));
    soon(&mut watcher).await;
    write(&folder, "sub/c.yaml", &service("c", 2));
    soon(&mut watcher).await;
}

#[tokio::test]
async fn reading_is_no_change() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &service("a", 1));
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    store(&folder).reload();
    let seen = tokio::time::timeout(Duration::from_millis(300), watcher.changed()).await;
    assert!(seen.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_tells_is_found_by_looking() {
    let folder = TempDir::new().unwrap();
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    watcher.folders = None;
    write(&folder, "a.yaml", &service("a", 1));
    let start = tokio::time::Instant::now();
    watcher.changed().await;
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[test]
fn parts_that_a_reload_keeps_tell_the_new_lines_of_their_object() {
    use crate::config::resources::{Kind, ObjectKey, Resource};
    use crate::config::translate::{Input, translate};
    let folder = TempDir::new().unwrap();
    write(
        &folder,
        "proxy.yaml",
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: me}\nspec: {interception: EXPLICIT}\n",
    );
    write(&folder, "a.yaml", &service("a", 80));
    let mut store = store(&folder);
    let proxy = |update: &Update| -> Arc<Resource> {
        let key = ObjectKey { kind: Kind::Proxy, namespace: "default".into(), name: "me".into() };
        update.resources.iter().find(|resource| resource.key == key).unwrap().clone()
    };
    let first = store.reload();
    let input = Input { resources: &first.resources, proxy: &proxy(&first) };
    let mesh = translate(&input, None).mesh;
    let cluster = &mesh.clusters["outbound|80||a.default.svc.cluster.local"];
    assert!(
        cluster.origin.to_string().ends_with(&format!("spec.ports[0] ({}:5:16)", path(&folder))),
        "{:?}",
        cluster.origin
    );

    write(&folder, "a.yaml", &format!("# 1\n# 2\n# 3\n# 4\n# 5\n{}", service("a", 80)));
    let second = store.reload();
    let input = Input { resources: &second.resources, proxy: &proxy(&second) };
    let again = translate(&input, Some(&mesh)).mesh;
    assert!(Arc::ptr_eq(cluster, &again.clusters[&cluster.name]), "nothing else changed");
    assert_eq!(cluster.origin.place().map(|place| place.line), Some(10));
    let dumped = serde_json::to_value(&again).unwrap();
    let dumped = &dumped["clusters"][&*cluster.name]["origin"]["Object"]["place"]["line"];
    assert_eq!(dumped, 10);

    // A version that does not hold moves nothing.
    write(&folder, "a.yaml", &format!("# 1\n{}", service("a", 0)));
    store.reload();
    assert_eq!(cluster.origin.place().map(|place| place.line), Some(10));
}

fn path(folder: &TempDir) -> String {
    folder.path().join("a.yaml").display().to_string()
}

#[test]
fn an_object_that_comes_back_in_another_file_is_found_there() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", &service("a", 1));
    write(&folder, "b.yaml", &format!("# moved\n{}", service("a", 1)));
    let mut store = store(&folder);
    let first = store.reload();
    let source = first.resources[0].source.clone();
    let origin = crate::mesh::Origin::written(source, "spec".into());
    assert!(origin.to_string().ends_with("a.yaml:5:1)"), "{origin}");
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    store.reload();
    assert!(origin.to_string().ends_with("b.yaml:6:1)"), "{origin}");
}
