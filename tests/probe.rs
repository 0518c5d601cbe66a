//! `sidegate probe`: the health check of containers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidegate")).arg("probe").args(arguments).output().unwrap()
}

/// A server that gives one answer.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz/ready", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let amount = stream.read(&mut head).unwrap();
        assert!(head[..amount].starts_with(b"GET /healthz/ready HTTP/1.1\r\n"));
        stream.write_all(answer.as_bytes()).unwrap();
    });
    url
}

#[test]
fn a_ready_proxy_gives_zero() {
    let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n");
    assert_eq!(probe(&[&url]).status.code(), Some(0));
}

#[test]
fn a_proxy_that_is_not_ready_gives_one_and_says_why() {
    let url = answering("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\ndraining\n");
    let output = probe(&[&url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().trim_end().ends_with("503: draining"));
}

#[test]
fn nobody_there_and_no_answer_give_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // The kernel accepts, and nobody answers.
    assert_eq!(probe(&[&url, "--timeout", "0.2"]).status.code(), Some(1));
    drop(listener);
    assert_eq!(probe(&[&url]).status.code(), Some(1));
}

#[test]
fn another_scheme_is_wrong_usage() {
    let output = probe(&["https://127.0.0.1/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("write it as in http://"));
}
