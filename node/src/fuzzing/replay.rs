//! The fuzz targets as unit tests: every input of the corpus, and mutations of them.
//!
//! `ROOKERY_FUZZ_SEED` and `ROOKERY_FUZZ_RUNS` change which mutations, and how many per target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEED: u64 = 0x526F_6F6B;
/// What a file of the corpus may hold, bytes, and how many there may be per target.
const FILE_MAX_BYTES: usize = 1024;
const FILES_MAX: usize = 40;

type Target = fn(&[u8]);

macro_rules! replay {
    ($($target:ident $runs:literal)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), super::$target, $runs);
            }
        )*

        /// Every folder of the corpus is replayed, and every target has a binary for libFuzzer.
        #[test]
        fn every_target_is_here() {
            let here = [$(stringify!($target)),*];
            assert_eq!(names_in("corpus"), here);
            let binaries: Vec<_> = here.iter().map(|name| format!("{name}.rs")).collect();
            assert_eq!(names_in("fuzz_targets"), binaries);
        }
    };
}

// In the order of the names, each with its number of mutations: a second or so in a debug build.
replay! {
    command 2_000
    decode_v31 4_000
    decode_v311 8_000
    decode_v5 12_000
    peer_frame 6_000
    proxy_header 20_000
    session_stream 6_000
    snapshot 8_000
    topic_filter 4_000
    websocket 6_000
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names_in(name: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

fn replay(name: &str, target: Target, runs: u64) {
    let corpus: Vec<_> = names_in(&format!("corpus/{name}"))
        .into_iter()
        .map(|file| (fs::read(folder("corpus").join(name).join(&file)).unwrap(), file))
        .collect();
    assert!((1..=FILES_MAX).contains(&corpus.len()), "{} files in the corpus of {name}", corpus.len());
    for (input, file) in &corpus {
        assert!(input.len() <= FILE_MAX_BYTES, "{file} is too long");
        let survives = catch_unwind(|| target(input)).is_ok();
        assert!(survives, "node/fuzz/corpus/{name}/{file} fails");
    }
    let seed = number("ROOKERY_FUZZ_SEED", SEED);
    let mut random = StdRng::seed_from_u64(seed);
    for run in 0..number("ROOKERY_FUZZ_RUNS", runs) {
        let input = mutated(&mut random, &corpus);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let path = env::temp_dir().join(format!("{name}-{seed}-{run}"));
            fs::write(&path, &input).unwrap();
            panic!(
                "mutation {run} with ROOKERY_FUZZ_SEED={seed} fails; it is in {}.\nOnce it is understood \
                 it belongs into node/fuzz/corpus/{name}/",
                path.display()
            );
        }
    }
}

/// One of the corpus, or the beginning of one and the end of another, with a few bytes changed.
fn mutated(random: &mut StdRng, corpus: &[(Vec<u8>, String)]) -> Vec<u8> {
    let pick = |random: &mut StdRng| corpus[random.random_range(0..corpus.len())].0.as_slice();
    let mut input = pick(random).to_vec();
    if random.random_bool(0.3) {
        let other = pick(random);
        input.truncate(random.random_range(0..=input.len()));
        input.extend_from_slice(&other[random.random_range(0..=other.len())..]);
    }
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=input.len());
        let there = at < input.len();
        match random.random_range(0..5) {
            0 if there => input[at] = random.random(),
            1 if there => input[at] ^= 1 << random.random_range(0..8),
            2 if there => drop(input.remove(at)),
            // What lengths and counts are at their bounds.
            3 if there => input[at] = [0, 1, 0x7F, 0x80, 0xFF][random.random_range(0..5)],
            _ => input.insert(at, random.random()),
        }
    }
    input
}
