//! Replays the corpus of the fuzz targets.

use crate::{fuzz_check_response, fuzz_paths};
use proptest::prelude::*;
use std::path::Path;

#[test]
fn the_corpus_of_paths_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/policy_paths");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "the corpus is gone");
    for file in files {
        fuzz_paths(&std::fs::read(file).unwrap());
    }
}

#[test]
fn the_corpus_of_answers_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/check_response");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 5, "the corpus is gone");
    for file in files {
        fuzz_check_response(&std::fs::read(file).unwrap());
    }
}

proptest! {
    #[test]
    fn no_answer_of_a_provider_breaks_anything(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        fuzz_check_response(&[&[0], &length[..], &message].concat());
        fuzz_check_response(&message);
    }

    #[test]
    fn no_path_of_a_policy_breaks_anything(written in "[/a*{}.%]{0,12}", path in "(/[a*{}.%]{0,3}){0,5}") {
        fuzz_paths(format!("{written}\n{path}").as_bytes());
    }

    #[test]
    fn templates_of_operators_and_literals_hold_what_they_say(
        written in "(/(\\{\\*\\}|a|bc)){1,4}(/\\{\\*\\*\\}(/a)?)?",
        path in "(/(a|bc|d)?){1,6}",
    ) {
        fuzz_paths(format!("{written}\n{path}").as_bytes());
    }
}
