//! What becomes of security objects, and of files that are being written.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Store, Update};
use crate::config::decode::Strictness;
use crate::config::files::Watcher;
use crate::config::resources::Spec;

fn policy(name: &str, app: &str, path: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: DENY, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 1}}]}}\n"
    )
}

fn store(folder: &TempDir) -> Store {
    Store::new(vec![folder.path().to_owned()], Strictness::default())
}

/// Writes a file by renaming.
fn put(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    fs::write(folder.path().join("new"), text).unwrap();
    fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
    folder.path().join(name)
}

/// What holds: a name, and for a closed scope the application that it closes, `*` for all of the namespace.
fn holds(update: &Update) -> Vec<String> {
    let names = update.resources.iter().map(|resource| match &resource.spec {
        Spec::Closed(closed) => {
            let app = closed.selector.match_labels.get("app").unwrap_or("*");
            format!("{}/{} closes {app}", resource.key.namespace, resource.key.name)
        }
        _ => resource.key.name.to_string(),
    });
    names.collect()
}

/// What is rejected, and whether its old version is kept.
fn rejected(update: &Update) -> Vec<(String, bool)> {
    let name = |key: &Option<crate::config::resources::ObjectKey>| {
        key.as_ref().map_or("?".into(), |key| key.name.to_string())
    };
    update.rejected.iter().map(|rejected| (name(&rejected.key), rejected.kept_old)).collect()
}

#[test]
fn two_first_definitions_of_a_policy_close_both_scopes_whatever_their_files() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let folder = TempDir::new().unwrap();
        put(&folder, "1.yaml", &policy("p", first, "/admin"));
        put(&folder, "2.yaml", &policy("p", second, "/admin"));
        let update = store(&folder).reload();
        let mut holds = holds(&update);
        holds.sort_by_key(|text| text.chars().last());
        assert!(holds[0].ends_with("closes a") && holds[1].ends_with("closes b"), "{holds:?}");
        assert_eq!(rejected(&update), [("p".into(), false), ("p".into(), false)]);
        assert!(update.findings.iter().any(|finding| finding.message.contains("2.yaml:2:1")));
    }
    let folder = TempDir::new().unwrap();
    put(&folder, "1.yaml", &policy("p", "a", "/admin"));
    put(&folder, "2.yaml", &policy("p", "a", "/admin"));
    let update = store(&folder).reload();
    assert_eq!(holds(&update), ["p"], "the same twice is one");
    assert_eq!(rejected(&update), [("p".into(), false)]);
}

#[test]
fn a_second_definition_of_a_policy_closes_its_own_scope_beside_the_one_that_holds() {
    let folder = TempDir::new().unwrap();
    put(&folder, "m.yaml", &policy("p", "a", "/admin"));
    let mut store = store(&folder);
    store.reload();
    put(&folder, "b.yaml", &policy("p", "b", "/admin"));
    let update = store.reload();
    assert_eq!(holds(&update), ["p", "shop/p#2 closes b"]);
    assert_eq!(rejected(&update), [("p".into(), true)]);
    put(&folder, "b.yaml", &policy("p", "a", "/other"));
    assert_eq!(holds(&store.reload()), ["p"], "the version that held is about the same workloads");
    put(&folder, "m.yaml", &policy("p", "a", "/more"));
    let update = store.reload();
    assert_eq!(rejected(&update), [("p".into(), false)], "what holds is new");
}

#[test]
fn a_policy_that_comes_with_a_wrong_identity_closes_its_scope() {
    for (from, to) in [("istio.io/v1", "istio.io/v1alpha1"), ("name: p", "name: New_One"), ("name: p, ", "")]
    {
        let folder = TempDir::new().unwrap();
        put(&folder, "a.yaml", &service("s"));
        let mut store = store(&folder);
        store.reload();
        put(&folder, "b.yaml", &policy("p", "b", "/").replace(from, to));
        let update = store.reload();
        assert_eq!(update.closed().count(), 1, "{to}: {:?}", holds(&update));
        assert!(holds(&update).iter().any(|text| text.ends_with("closes b")), "{to}: {:?}", holds(&update));
        assert_eq!(update.rejected.len(), 1, "{to}");
        assert!(update.unreadable.is_empty(), "{to}");
    }
}

#[test]
fn a_policy_in_a_file_that_is_broken_from_the_start_closes_its_namespace() {
    let folder = TempDir::new().unwrap();
    put(&folder, "a.yaml", &service("s"));
    let mut store = store(&folder);
    store.reload();
    put(&folder, "b.yaml", &(policy("whole", "b", "/") + &policy("p", "b", "/") + "x: [\n"));
    let update = store.reload();
    let expected = ["s", "shop/(b.yaml:8) closes *", "shop/whole closes b"];
    assert_eq!(holds(&update), expected);
    assert!(rejected(&update).contains(&("?".into(), false)), "the file itself: {:?}", update.rejected);
    // Lines that move make no second one of it, and a file that is gone opens again.
    put(
        &folder,
        "b.yaml",
        &("# moved\n".to_owned() + &policy("whole", "b", "/") + &policy("p", "b", "/") + "x: [\n"),
    );
    assert_eq!(holds(&store.reload()), expected.map(|text| text.replace(":8", ":9")));
    put(&folder, "b.yaml", &policy("p", "b", "/"));
    assert_eq!(holds(&store.reload()), ["s", "p"]);
}

#[test]
fn a_file_that_breaks_keeps_its_policies_and_closes_only_for_new_ones() {
    let folder = TempDir::new().unwrap();
    let file = put(&folder, "a.yaml", &(service("s") + &policy("p", "a", "/")));
    let mut store = store(&folder);
    store.reload();
    put(&folder, "a.yaml", &(service("s") + &policy("p", "a", "/new") + "x: [\n"));
    let update = store.reload();
    assert_eq!(holds(&update), ["s", "p"]);
    assert!(rejected(&update).contains(&("?".into(), true)), "{:?}", update.rejected);
    assert_eq!(update.unreadable, [std::sync::Arc::from(file.as_path())]);
    put(&folder, "a.yaml", &(service("s") + &policy("p", "a", "/new") + &policy("q", "a", "/") + "x: [\n"));
    assert_eq!(holds(&store.reload()), ["s", "shop/(a.yaml:13) closes *", "p"]);
}

#[test]
fn a_file_written_in_place_that_lacks_a_policy_is_not_believed_at_once() {
    let folder = TempDir::new().unwrap();
    let all = policy("one", "a", "/") + &policy("two", "a", "/") + &service("s");
    let file = put(&folder, "a.yaml", &all);
    let mut store = store(&folder);
    let begin = Instant::now();
    store.reload_at(begin);
    let at = |millis| begin + Duration::from_millis(millis);
    for half in ["", &policy("one", "a", "/")] {
        fs::write(&file, half).unwrap();
        assert_eq!(store.reload_at(at(100)).resources.len(), 3, "{half}");
        assert_eq!(store.again(), Some(Duration::from_secs(2)));
        assert_eq!(store.reload_at(at(2000)).resources.len(), 3);
        fs::write(&file, &all).unwrap();
        assert_eq!(store.reload_at(at(2500)).generation, 1, "nothing has happened");
        assert_eq!(store.again(), None);
    }
    let without = policy("one", "a", "/") + &service("s");
    fs::write(&file, &without).unwrap();
    store.reload_at(at(10_000));
    assert_eq!(holds(&store.reload_at(at(12_000))), ["s", "one"], "after a while it is meant so");
    assert_eq!(store.again(), None);
    // Without a policy that is lost, or by renaming, it counts at once.
    fs::write(&file, policy("one", "a", "/") + &policy("two", "a", "/")).unwrap();
    assert_eq!(holds(&store.reload_at(at(12_100))), ["one", "two"]);
    put(&folder, "a.yaml", &service("s"));
    assert_eq!(holds(&store.reload_at(at(12_200))), ["s"]);
}

#[test]
fn a_policy_that_moves_to_another_file_is_not_lost() {
    let folder = TempDir::new().unwrap();
    let file = put(&folder, "a.yaml", &(policy("one", "a", "/") + &service("s")));
    let mut store = store(&folder);
    store.reload();
    fs::write(file, service("s")).unwrap();
    put(&folder, "b.yaml", &policy("one", "a", "/"));
    let update = store.reload();
    assert!(update.rejected.is_empty() && update.findings.is_empty(), "{:?}", update.rejected);
    assert!(update.resources[1].placement.file().ends_with("b.yaml"));
}

#[test]
fn a_file_with_policies_that_is_gone_is_missed_for_a_while() {
    let folder = TempDir::new().unwrap();
    let file = put(&folder, "a.yaml", &policy("one", "a", "/"));
    let plain = put(&folder, "b.yaml", &service("s"));
    let mut store = store(&folder);
    let begin = Instant::now();
    store.reload_at(begin);
    fs::remove_file(&file).unwrap();
    fs::remove_file(plain).unwrap();
    assert_eq!(holds(&store.reload_at(begin)), ["one"]);
    assert_eq!(holds(&store.reload_at(begin + Duration::from_secs(2))), [""; 0]);
}

/// Waits for what the watcher tells of.
async fn told(watcher: &mut Watcher) {
    tokio::time::timeout(Duration::from_secs(8), watcher.changed()).await.expect("a change is noticed");
}

#[tokio::test]
async fn a_file_counts_when_it_is_closed() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "a.yaml", &(service("one") + &service("two")));
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    let mut store = store(&folder).beside(&watcher);
    store.reload();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(service("one").as_bytes()).unwrap();
    told(&mut watcher).await;
    let half = store.reload();
    assert_eq!(holds(&half), ["one", "two"], "the first half says nothing");
    file.write_all(b"# \xc3").unwrap();
    told(&mut watcher).await;
    assert_eq!(store.reload().generation, 1, "nor does half of a character");
    file.write_all(b"\xa9\n").unwrap();
    assert!(store.again().is_some_and(|again| again <= Duration::from_secs(10)), "{:?}", store.again());
    // A new file that is half written is not there yet, and others are read meanwhile.
    let mut fresh = fs::File::create(folder.path().join("b.yaml")).unwrap();
    fresh.write_all(service("three").as_bytes()).unwrap();
    put(&folder, "c.yaml", &service("four"));
    told(&mut watcher).await;
    assert_eq!(holds(&store.reload()), ["four", "one", "two"]);
    file.write_all(service("five").as_bytes()).unwrap();
    drop((file, fresh));
    told(&mut watcher).await;
    assert_eq!(holds(&store.reload()), ["five", "four", "one", "three"]);
    assert_eq!(store.again(), None);
}

#[tokio::test]
async fn a_file_that_is_never_closed_is_read_after_a_while_and_loses_no_policy() {
    let folder = TempDir::new().unwrap();
    let path = put(&folder, "a.yaml", &policy("p", "a", "/"));
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    let mut store = store(&folder).beside(&watcher);
    store.reload();
    let mut file = fs::File::create(&path).unwrap();
    let mut other = fs::File::create(folder.path().join("b.yaml")).unwrap();
    other.write_all(service("s").as_bytes()).unwrap();
    file.write_all(service("t").as_bytes()).unwrap();
    told(&mut watcher).await;
    assert_eq!(holds(&store.reload()), ["p"]);
    let later = Instant::now() + Duration::from_secs(10);
    let update = store.reload_at(later);
    assert_eq!(holds(&update), ["s", "p"]);
    let said: Vec<_> = update.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.iter().all(|text| text.contains("is open for writing for more than 10 s")) && said.len() == 2,
        "{said:?}"
    );
    assert_eq!(holds(&store.reload_at(later + Duration::from_secs(3600))), ["s", "p"]);
    drop(file);
    told(&mut watcher).await;
    store.reload_at(later);
    assert_eq!(holds(&store.reload_at(later + Duration::from_secs(2))), ["s", "t"]);
}

#[tokio::test]
async fn a_file_renamed_into_its_place_while_open_counts_when_it_is_closed() {
    let folder = TempDir::new().unwrap();
    put(&folder, "a.yaml", &service("one"));
    let mut watcher = Watcher::new(vec![folder.path().to_owned()]);
    let mut store = store(&folder).beside(&watcher);
    store.reload();
    let mut file = fs::File::create(folder.path().join(".a.tmp")).unwrap();
    file.write_all(service("two").as_bytes()).unwrap();
    fs::rename(folder.path().join(".a.tmp"), folder.path().join("a.yaml")).unwrap();
    told(&mut watcher).await;
    assert_eq!(holds(&store.reload()), ["one"]);
    drop(file);
    told(&mut watcher).await;
    assert_eq!(holds(&store.reload()), ["two"]);
}
