use std::fs;

use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn push(log: &WorkerLog, line: &str) {
    log.line(|out| out.extend_from_slice(line.as_bytes()));
}

#[test]
fn lines_of_several_workers_arrive_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "before\n").unwrap();
    let sink = LogSink::open(&path).unwrap();
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let sink = sink.clone();
            std::thread::spawn(move || {
                let log = sink.worker();
                (0..1_000).for_each(|line| push(&log, &format!("{worker} {line} {}\n", "x".repeat(40))));
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(sink.flush(PATIENCE));
    let text = fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "before");
    let mut next = [0; 3];
    for line in rest.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let worker: usize = fields[0].parse().unwrap();
        assert_eq!(fields[1], next[worker].to_string(), "out of order");
        assert_eq!(fields[2].len(), 40);
        next[worker] += 1;
    }
    assert_eq!(next, [1_000; 3]);
    assert_eq!((sink.written(), sink.dropped()), (3_000, 0));
}

#[test]
fn a_stuck_reader_costs_lines_not_time_and_every_lost_line_is_counted() {
    // Nobody receives: the queue is all there is.
    let (sink, queue) = LogSink::queued(2, &Lost::default());
    let log = sink.worker();
    let line = format!("{}\n", "x".repeat(999));
    (0..100).for_each(|_| push(&log, &line));
    drop(log);
    let queued: u64 =
        queue.try_iter().map(|message| if let Message::Lines(_, lines) = message { lines } else { 0 }).sum();
    assert_eq!(queued, 34);
    assert_eq!(sink.dropped(), 66);
    assert!(!sink.flush(Duration::ZERO), "nothing was written");
}

#[test]
fn a_rotated_file_is_followed() {
    let folder = TempDir::new().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let sink = LogSink::open(&path).unwrap();
    let log = sink.worker();
    push(&log, "one\n");
    log.flush();
    assert!(sink.flush(PATIENCE));
    fs::rename(&path, &old).unwrap();
    sink.reopen();
    push(&log, "two\n");
    log.flush();
    assert!(sink.flush(PATIENCE));
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
}

#[test]
fn a_write_error_is_counted_and_does_not_end_the_writer() {
    let counts = Arc::new(Counts::default());
    let mut writer = Writer::open(Path::new("/dev/full"), counts.clone()).unwrap();
    writer.write(b"a\nb\n", 2);
    writer.write(b"c\n", 1);
    assert_eq!(counts.dropped.load(Ordering::Relaxed), 3);
    assert_eq!(counts.written.load(Ordering::Relaxed), 0);
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error_at_once() {
    let folder = TempDir::new().unwrap();
    assert!(LogSink::open(&folder.path().join("missing/access.log")).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lonely_line_is_handed_over_in_time_and_an_idle_worker_arms_no_timer() {
    let (sink, queue) = LogSink::queued(8, &Lost::default());
    let log = sink.worker();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(log.clone().flush_in_time());
    let run = local.run_until(async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(queue.try_recv().is_err(), "nothing to hand over");
        push(&log, "a\n");
        push(&log, "b\n");
        tokio::time::sleep(FLUSH_AFTER / 2).await;
        assert!(queue.try_recv().is_err(), "others may join");
        tokio::time::sleep(FLUSH_AFTER).await;
        let Ok(Message::Lines(bytes, 2)) = queue.try_recv() else { panic!("no lines") };
        assert_eq!(bytes, b"a\nb\n");
    });
    run.await;
}

#[test]
fn a_pipe_that_nobody_reads_is_refused_and_not_waited_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let refused = LogSink::open(&path).unwrap_err();
    assert!(refused.to_string().contains("start its reader first"), "{refused}");
}

#[test]
fn what_all_sinks_have_lost_outlives_them() {
    let lost = Lost::default();
    let (sink, queue) = LogSink::queued(1, &lost);
    sink.send(b"one\n".to_vec(), 1);
    sink.send(b"two\n".to_vec(), 1);
    drop((sink, queue));
    assert_eq!(lost.lines(), 1);
}
