use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged by `run` under the given shape and levels.
fn logged(shape: Shape, levels: &str, run: impl FnOnce(&Levels)) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let (subscriber, levels) = subscriber(shape, levels, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || run(&levels));
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_text_line_has_istios_columns_and_cannot_be_forged() {
    let text = logged(Shape::Text, "info", |_| {
        tracing::warn!(target: "sidegate::x", peer = %"a\nb\u{1b}[31m", port = 80, "refused\n{}", "x");
    });
    let columns: Vec<_> = text.split('\t').collect();
    assert_eq!(columns[0].len(), "2026-11-21T10:00:00.123456Z".len());
    assert_eq!(
        &columns[1..],
        ["warn", "sidegate::x", "refused\\u{a}x", "peer=a\\u{a}b\\u{1b}[31m port=80\n"]
    );
}

#[test]
fn a_json_line_keeps_types_and_its_own_keys() {
    let text = logged(Shape::Json, "info", |_| {
        tracing::info!(target: "t", level = "fake", count = 3, ok = true, "hello \"you\"");
    });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["level"], "info");
    assert_eq!(value["scope"], "t");
    assert_eq!(value["msg"], "hello \"you\"");
    assert_eq!((value["count"].as_u64(), value["ok"].as_bool()), (Some(3), Some(true)));
}

#[test]
fn levels_change_while_running() {
    let text = logged(Shape::Text, "warning,loud=debug", |levels| {
        tracing::info!(target: "quiet", "1");
        tracing::debug!(target: "loud::part", "2");
        levels.set("quiet", "debug").unwrap();
        tracing::debug!(target: "quiet", "3");
        assert_eq!(levels.to_string(), "level: warn\n  loud: debug\n  quiet: debug\n");
        levels.set_all("error").unwrap();
        tracing::warn!(target: "loud", "4");
        tracing::error!(target: "quiet", "5");
        assert!(levels.set_all("verbose").unwrap_err().to_string().contains("\"verbose\" is not a level"));
        assert_eq!(levels.to_string(), "level: error\n");
    });
    let messages: Vec<_> = text.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    assert_eq!(messages, ["2", "3", "5"]);
}

#[test]
fn wrong_levels_are_refused_at_start() {
    for wrong in ["", "loud", "a=b", "info,,"] {
        assert!(subscriber(Shape::Text, wrong, io::sink).is_err(), "{wrong}");
    }
}
