//! Every target over its seeds and a fixed number of variations of them. `PROPTEST_CASES` asks for more.

use knoll_fuzz::{TARGETS, Target, target, variations};
use proptest::test_runner::{Config, RngSeed, TestRunner};

fn run(name: &str) {
    let target: &Target = target(name).expect("a target");
    let seeds = target.seeds().expect("a folder of seeds");
    for (file, seed) in &seeds {
        if let Err(panic) = std::panic::catch_unwind(|| (target.check)(seed)) {
            eprintln!("{} is the seed", target.corpus().join(file).display());
            std::panic::resume_unwind(panic);
        }
    }
    // A fixed beginning: a change that breaks nothing must not fail. New ground is for `scripts/fuzz`.
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..Config::with_cases(target.cases) };
    let seeds = seeds.into_iter().map(|(_, seed)| seed).collect();
    let tried = TestRunner::new(config).run(&variations::of(seeds, target.words), |input| {
        (target.check)(&input);
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_tested_and_has_seeds() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            for target in TARGETS {
                assert!(!target.seeds().expect("a folder of seeds").is_empty(), "{} has none", target.name);
            }
        }
    };
}

targets! {
    archive, layer, image_documents, image_reference, challenge, keychain, image_user,
    dns, host, headers,
    web_socket, monitor_frames,
    json, yaml, protobuf, json_patch, strategic_patch, apply, definition,
    label_selector, field_selector, json_path, template, quantity, duration, schedule, cesql,
    event_json, event_batch, event_headers,
    token, certificate,
    journal, record, checkpoint,
    requests,
}
