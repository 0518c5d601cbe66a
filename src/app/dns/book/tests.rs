use super::*;
use proptest::prelude::*;

fn host(refresh: Duration) -> Host {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
    Host::new(task, Vec::new(), refresh)
}

#[test]
fn each_change_of_state_is_told_once_and_a_missing_name_is_told_from_a_silent_server() {
    let mut host = host(Duration::from_secs(5));
    let well = || Answer::new(vec![IpAddr::from([192, 0, 2, 1])], Duration::ZERO);
    let (gone, silent) = (|| Err(Failure::NotFound), || Err(Failure::Timeout));
    let steps: [(Result<Answer, Failure>, Option<Notice>); 9] = [
        (gone(), Some(Notice::Without)),
        (gone(), None),
        (silent(), Some(Notice::Without)),
        (silent(), None),
        (well(), Some(Notice::Again)),
        (well(), None),
        (silent(), Some(Notice::Kept)),
        (gone(), Some(Notice::Kept)),
        (gone(), None),
    ];
    for (number, (outcome, expected)) in steps.into_iter().enumerate() {
        let told = host.notice(&outcome.clone().map(|_| ()));
        assert_eq!(told, expected, "step {number}");
        host.record("a.test", outcome);
    }
    assert!(Failure::NotFound.to_string().contains("NXDOMAIN"));
    assert!(Failure::Timeout.to_string().contains("in time"));
}

fn outcome() -> impl Strategy<Value = Result<Answer, Failure>> {
    let answer = (prop::collection::vec(any::<[u8; 4]>(), 0..100), any::<u32>()).prop_map(|(ips, ttl)| {
        let ips = ips.into_iter().map(IpAddr::from).collect();
        Answer::new(ips, Duration::from_secs(u64::from(ttl)))
    });
    let failures = [Failure::NotFound, Failure::Timeout, Failure::Error("refused".to_owned())];
    prop_oneof![answer, prop::sample::select(failures.to_vec()).prop_map(Err)]
}

proptest! {
    #[test]
    fn pauses_are_bounded_and_an_answer_is_only_lost_to_denials(
        outcomes in prop::collection::vec(outcome(), 1..60),
        refresh in 0_u64..1000,
    ) {
        let refresh = Duration::from_secs(refresh);
        let mut host = host(refresh);
        let mut denials = 0;
        for outcome in outcomes {
            let before = host.answer.clone();
            let pause = host.record("a.test", outcome.clone());
            match outcome {
                Ok(answer) => {
                    denials = 0;
                    prop_assert!(answer.addresses.len() <= 64);
                    prop_assert!(pause >= MIN_REFRESH && pause <= MAX_TTL.max(refresh), "{pause:?}");
                    prop_assert_eq!(&host.answer, &Some(answer));
                }
                Err(failure) => {
                    denials = if failure.is_denial() { denials + 1 } else { 0 };
                    prop_assert!(pause >= FIRST_RETRY / 2 && pause <= MAX_RETRY, "{pause:?}");
                    let expected = if denials < DENIALS_BELIEVED { before } else { None };
                    prop_assert_eq!(&host.answer, &expected);
                }
            }
        }
    }
}
