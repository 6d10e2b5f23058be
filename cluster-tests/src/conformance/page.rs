//! `docs/conformance.md`, and what is missing from it.

use std::fmt::Write;

use super::{Binds, Standard, Suite};

/// Of one standard: how many statements that bind a server are proven, and how many there are.
/// Those that ask nothing of this server count as neither.
///
/// # Errors
/// The statements that no case names, and the names that are no statements.
pub fn coverage(suites: &[Suite], standard: Standard) -> Result<(usize, usize), String> {
    let statements = standard.statements();
    let known = |id: &str| statements.iter().any(|statement| statement.id == id);
    let (mut proven, mut asked, mut faults) = (0, 0, String::new());
    for statement in &statements {
        if statement.binds == Binds::Client || standard.vacuous(statement.id).is_some() {
            continue;
        }
        asked += 1;
        if proofs(suites, standard, statement.id).is_empty() {
            let _ = writeln!(faults, "no case proves [MQTT-{}] of {}", statement.id, standard.name());
        } else {
            proven += 1;
        }
    }
    for suite in suites {
        for case in suite.cases {
            for id in case.proves(standard).iter().filter(|id| !known(id)) {
                let (name, title) = (suite.name, case.title);
                let _ = writeln!(faults, "{name}: {title:?} names {id}, not of {}", standard.name());
            }
        }
    }
    if faults.is_empty() { Ok((proven, asked)) } else { Err(faults) }
}

/// The titles of the cases that prove a statement, behind the names of their suites.
fn proofs(suites: &[Suite], standard: Standard, id: &str) -> Vec<String> {
    let each = suites.iter().flat_map(|suite| suite.cases.iter().map(move |case| (suite.name, case)));
    let of_id = each.filter(|(_, case)| case.proves(standard).contains(&id));
    of_id.map(|(suite, case)| format!("`{suite}`: {}", case.title)).collect()
}

/// The whole page.
pub fn page(suites: &[Suite]) -> String {
    let mut out = String::from(
        "# Conformance\n\n\
         Each normative statement of the standards, by its id in their appendices, and the cases that\n\
         prove it: `cluster-tests/tests/conformance/`, one file per suite. Every case runs over TCP and\n\
         WebSocket on one node, and on a cluster with its two ends on different nodes; what it proves of\n\
         3.1.1 also with MQTT 3.1 where that has the same rule. This page is written by\n\
         `scripts/conformance --write`, and the tests fail when it differs from them or when a statement\n\
         that binds a server has no case. Where the standards leave a choice,\n\
         [conformance-notes.md](conformance-notes.md) says what Rookery does.\n",
    );
    for standard in Standard::ALL {
        let _ = write!(out, "\n## {}\n\n| statement | binds | proven by |\n|---|---|---|\n", standard.name());
        for statement in standard.statements() {
            let binds = match statement.binds {
                Binds::Server => "server",
                Binds::Client => "client",
                Binds::Both => "both",
            };
            let mut proofs = proofs(suites, standard, statement.id).join("<br>");
            if let Some(reason) = standard.vacuous(statement.id) {
                proofs = format!("does not apply: {reason}");
            }
            let _ = writeln!(out, "| MQTT-{} | {binds} | {proofs} |", statement.id);
        }
    }
    out.push_str("\n## Beyond the statements\n\n");
    for suite in suites {
        let without = suite.cases.iter().filter(|c| Standard::ALL.iter().all(|s| c.proves(*s).is_empty()));
        for case in without {
            let _ = writeln!(out, "- `{}`: {}", suite.name, case.title);
        }
    }
    out
}
