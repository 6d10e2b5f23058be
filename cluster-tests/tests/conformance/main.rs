//! The standards, statement by statement. Runs without the usual harness, because the cases share
//! two clusters and are multiplied by versions and transports:
//!
//!     cargo test -p cluster-tests --test conformance                  everything
//!     cargo test -p cluster-tests --test conformance -- cluster/v5    by a part of the name
//!     WRITE_PAGE=1 cargo test -p cluster-tests --test conformance -- page

mod authentication;
mod connect;
mod disconnect;
mod flow;
mod format;
mod keep_alive;
mod messages;
mod order;
mod properties;
mod publish;
mod qos;
mod retained;
mod sessions;
mod shared;
mod subscribe;
mod topics;
mod websocket;
mod wills;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use cluster_tests::conformance::{Ground, Grounds, Standard, Suite, coverage, page};
use cluster_tests::mqtt::Version;
use cluster_tests::tools::repository;
use libtest_mimic::{Arguments, Failed, Trial};

const SUITES: &[Suite] = &[
    Suite { name: "authentication", cases: authentication::CASES },
    Suite { name: "connect", cases: connect::CASES },
    Suite { name: "disconnect", cases: disconnect::CASES },
    Suite { name: "flow", cases: flow::CASES },
    Suite { name: "format", cases: format::CASES },
    Suite { name: "keep_alive", cases: keep_alive::CASES },
    Suite { name: "order", cases: order::CASES },
    Suite { name: "properties", cases: properties::CASES },
    Suite { name: "publish", cases: publish::CASES },
    Suite { name: "qos", cases: qos::CASES },
    Suite { name: "retained", cases: retained::CASES },
    Suite { name: "sessions", cases: sessions::CASES },
    Suite { name: "shared", cases: shared::CASES },
    Suite { name: "subscribe", cases: subscribe::CASES },
    Suite { name: "topics", cases: topics::CASES },
    Suite { name: "websocket", cases: websocket::CASES },
    Suite { name: "wills", cases: wills::CASES },
];

/// Most cases wait for something most of the time.
const THREADS: usize = 16;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let grounds = Arc::new(Grounds::new().expect("a temporary file"));
    let mut trials = Vec::new();
    for ground in Ground::ALL {
        for suite in SUITES {
            for case in suite.cases {
                for version in case.versions_at(ground) {
                    let name = format!("{}/{}/{}: {}", ground.name(), label(version), suite.name, case.title);
                    let grounds = Arc::clone(&grounds);
                    trials.push(Trial::test(name, move || (case.run)(&grounds.site(ground, version))));
                }
            }
        }
    }
    for standard in Standard::ALL {
        trials.push(Trial::test(format!("coverage of {}", standard.name()), move || covered(standard)));
    }
    trials.push(Trial::test("page", page_is_current));
    let conclusion = libtest_mimic::run(&arguments, trials);
    for standard in Standard::ALL {
        if let Ok((proven, asked)) = coverage(SUITES, standard) {
            println!("{}: {proven} of {asked} statements that bind a server are proven", standard.name());
        }
    }
    conclusion.exit_code()
}

fn label(version: Version) -> &'static str {
    match version {
        Version::V31 => "v3.1",
        Version::V311 => "v3.1.1",
        Version::V5 => "v5",
    }
}

fn covered(standard: Standard) -> Result<(), Failed> {
    coverage(SUITES, standard)?;
    Ok(())
}

fn page_is_current() -> Result<(), Failed> {
    let path: PathBuf = repository().join("docs/conformance.md");
    let expected = page(SUITES);
    if std::env::var_os("WRITE_PAGE").is_some() {
        std::fs::write(&path, &expected)?;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        return Err("docs/conformance.md is not what the cases say; scripts/conformance --write".into());
    }
    Ok(())
}
