//! `rookery cluster …`

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::{ClusterCommand, Format};
use super::client::Api;
use super::exit::{Exit, Failure};
use super::out;
use crate::admin::{
    CaStatus, ClusterStatus, ForgetRequest, JoinRequest, JoinToken, Member, NewLeader, RotateRequest,
    TokenRequest, TransferRequest,
};
use crate::env;

/// The variable that may hold the token of `join`; never an argument, which everyone on the
/// machine can read.
const TOKEN_VARIABLE: &str = "ROOKERY_TOKEN";
/// A token is shorter; whatever is longer is the wrong file.
const MAX_TOKEN_BYTES: u64 = 4_096;
const POLL: Duration = Duration::from_millis(100);
/// How long the CA of a cluster may take to be replaced.
const ROTATION_TIMEOUT: Duration = Duration::from_secs(110);

pub async fn run(command: ClusterCommand, format: Format) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init(api) => {
            let status: ClusterStatus = Api::new(api.api).post("/api/v1/cluster/init", &json!({})).await?;
            out::say("formed a new cluster");
            out::show(format, &status, describe)
        }
        ClusterCommand::Token { api, ttl } => {
            let request = TokenRequest { ttl_s: ttl.as_secs() };
            let token: JoinToken = Api::new(api.api).post("/api/v1/cluster/token", &request).await?;
            out::show(format, &token, |token| format!("{}\n", token.token))
        }
        ClusterCommand::Join { api, seeds, token_file } => {
            let request = JoinRequest { seeds, token: read_token(token_file.as_deref())? };
            let status: ClusterStatus = Api::new(api.api).post("/api/v1/cluster/join", &request).await?;
            out::say("joined the cluster");
            out::show(format, &status, describe)
        }
        ClusterCommand::Status { api, wait, nodes, timeout } => {
            let api = Api::new(api.api);
            let status = if wait { wait_healthy(&api, nodes, timeout).await? } else { fetch(&api).await? };
            out::show(format, &status, describe)?;
            match trouble(&status, nodes) {
                None => Ok(()),
                Some(trouble) => Err(Failure::new(Exit::Unhealthy, trouble)),
            }
        }
        ClusterCommand::Members(api) => {
            let status = fetch(&Api::new(api.api)).await?;
            out::show(format, &status.members, |members| member_table(members))
        }
        ClusterCommand::Leave { api, yes } => {
            let api = Api::new(api.api);
            let status = fetch(&api).await?;
            let question =
                format!("Take {} out of its cluster for good, with all its connections?", status.node);
            out::confirm(&question, yes)?;
            api.post::<()>("/api/v1/cluster/leave", &json!({})).await?;
            out::say(&format!("{} has left the cluster", status.node));
            out::show(format, &json!({ "left": status.node }), |_| String::new())
        }
        ClusterCommand::Forget { api, node, force, yes } => {
            let at_risk = if force { ", even if acknowledged data is lost by it" } else { "" };
            out::confirm(&format!("Take {node} out of the cluster for good{at_risk}?"), yes)?;
            let request = ForgetRequest { node: node.clone(), force };
            Api::new(api.api).post::<()>("/api/v1/cluster/forget", &request).await?;
            out::say(&format!("{node} is no longer a member"));
            out::show(format, &json!({ "forgotten": node }), |_| String::new())
        }
        ClusterCommand::RotateCa { api, force, yes } => {
            if force {
                out::confirm("Leave members behind that do not answer?", yes)?;
            }
            let ca = rotate(&api.api, force).await?;
            out::say("the cluster's CA is replaced; tokens made before are void");
            out::show(format, &ca, ca_table)
        }
        ClusterCommand::TransferLeader { api, to } => {
            let request = TransferRequest { to };
            let leader: NewLeader =
                Api::new(api.api).post("/api/v1/cluster/transfer-leader", &request).await?;
            out::say(&format!("{} leads now", leader.leader));
            out::show(format, &leader, |leader| format!("{}\n", leader.leader))
        }
    }
}

/// Has the CA replaced, and tells how far the members are meanwhile.
async fn rotate(address: &str, force: bool) -> Result<CaStatus, Failure> {
    let api = Api::new(address).with_timeout(ROTATION_TIMEOUT);
    let request = RotateRequest { force };
    let asked = api.post("/api/v1/cluster/rotate-ca", &request);
    let watched = async {
        let api = Api::new(address);
        let mut told = std::collections::BTreeMap::new();
        loop {
            // Only to tell about it; what became of it the other request says.
            let ca: CaStatus = api.get("/api/v1/cluster/ca").await.unwrap_or_default();
            for member in ca.members {
                let state = (member.state, member.fingerprint);
                let before = told.insert(member.name.clone(), state.clone());
                if before.is_some_and(|before| before != state) {
                    out::say(&format!("{}: {}", out::printable(&member.name), word(&state.0)));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        answer = asked => answer,
        () = watched => unreachable!("it ends with the other"),
    }
}

fn ca_table(ca: &CaStatus) -> String {
    let rows = ca
        .members
        .iter()
        .map(|m| [m.name.clone(), word(&m.state), m.fingerprint.clone().unwrap_or_default()]);
    out::table(["NAME", "STATE", "CA"], rows)
}

async fn fetch(api: &Api) -> Result<ClusterStatus, Failure> {
    api.get("/api/v1/cluster").await
}

/// Why the cluster does not count as healthy with at least `nodes` members.
fn trouble(status: &ClusterStatus, nodes: usize) -> Option<String> {
    if status.cluster_id.is_none() {
        return Some(format!("{} is of no cluster yet: `rookery cluster init` or `join`", status.node));
    }
    if status.members.len() < nodes {
        return Some(format!("the cluster has {} of {nodes} members", status.members.len()));
    }
    if status.leader.is_none() {
        return Some("the cluster has no leader".to_owned());
    }
    let ailing =
        |m: &Member| Some(format!("{}: {}", out::printable(&m.name), out::printable(m.trouble.as_ref()?)));
    if let Some(trouble) = status.members.iter().find_map(ailing) {
        return Some(trouble);
    }
    (!status.is_healthy()).then(|| "not all members are up".to_owned())
}

async fn wait_healthy(api: &Api, nodes: usize, timeout: Duration) -> Result<ClusterStatus, Failure> {
    let deadline = env::now() + timeout;
    loop {
        let why = match fetch(api).await {
            Ok(status) => match trouble(&status, nodes) {
                None => return Ok(status),
                Some(trouble) => trouble,
            },
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            Err(failure) => failure.message,
        };
        if env::now() >= deadline {
            return Err(Failure::new(Exit::Timeout, format!("not healthy in time: {why}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn read_token(file: Option<&Path>) -> Result<String, Failure> {
    let mut token = String::new();
    match file {
        Some(path) if path == Path::new("-") => {
            std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
        }
        Some(path) => {
            let wrong = |e| Failure::new(Exit::Usage, format!("token file {}: {e}", path.display()));
            let file = std::fs::File::open(path).map_err(wrong)?;
            file.take(MAX_TOKEN_BYTES).read_to_string(&mut token).map_err(wrong)?;
        }
        None => token = std::env::var(TOKEN_VARIABLE).unwrap_or_default(),
    }
    match token.trim() {
        "" => {
            let message = format!("no token: give --token-file FILE, --token-file - or {TOKEN_VARIABLE}");
            Err(Failure::new(Exit::Usage, message))
        }
        token => Ok(token.to_owned()),
    }
}

fn describe(status: &ClusterStatus) -> String {
    let or_none = |text: &Option<String>| text.as_deref().map_or("none".to_owned(), out::printable);
    format!(
        "cluster   {}\nleader    {}\nterm      {}\nfeatures  level {}\nca        {}\nasked     {}\n\n{}",
        or_none(&status.cluster_id),
        or_none(&status.leader),
        status.term,
        status.feature_level,
        or_none(&status.ca),
        out::printable(&status.node),
        member_table(&status.members)
    )
}

fn member_table(members: &[Member]) -> String {
    let rows = members.iter().map(|m| {
        let role = if m.leader { "leader".to_owned() } else { word(&m.role) };
        let lag = m.lag.to_string();
        [
            m.name.clone(),
            role,
            if m.draining { "draining".to_owned() } else { word(&m.state) },
            m.mqtt_addr.clone(),
            m.ws_addr.clone(),
            m.api_addr.clone(),
            m.peer_addr.clone(),
            lag,
            m.version.clone(),
            m.id.clone(),
        ]
    });
    out::table(["NAME", "ROLE", "STATE", "MQTT", "WS", "API", "PEER", "LAG", "VERSION", "ID"], rows)
}

/// A document's word for `value`, so that tables and JSON speak alike.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::admin::{CaMember, CaState, MemberState, Role};

    fn member(name: &str, state: MemberState) -> Member {
        Member {
            id: "00000000000000aa".to_owned(),
            name: name.to_owned(),
            role: Role::Voter,
            state,
            draining: false,
            peer_addr: "127.0.0.1:17883".to_owned(),
            api_addr: "127.0.0.1:18083".to_owned(),
            mqtt_addr: "127.0.0.1:1883".to_owned(),
            ws_addr: String::new(),
            applied: 7,
            lag: 0,
            version: "0.1.0".to_owned(),
            leader: name == "n1",
            trouble: None,
        }
    }

    #[test]
    fn a_cluster_is_healthy_only_as_a_whole() {
        let mut status = ClusterStatus { node: "n1".to_owned(), ..ClusterStatus::default() };
        assert!(trouble(&status, 1).expect("no cluster").contains("of no cluster yet"));
        status.cluster_id = Some("c".to_owned());
        status.members = vec![member("n1", MemberState::Up), member("n2", MemberState::Down)];
        assert!(trouble(&status, 1).expect("no leader").contains("no leader"));
        status.leader = Some("n1".to_owned());
        assert!(trouble(&status, 2).expect("one down").contains("not all members are up"));
        status.members[1].state = MemberState::Up;
        assert_eq!(trouble(&status, 2), None);
        status.members[1].trouble = Some("its disk is full".to_owned());
        assert_eq!(trouble(&status, 2).expect("one ails"), "n2: its disk is full");
        status.members[1].trouble = None;
        assert!(trouble(&status, 3).expect("one missing").contains("2 of 3"));
    }

    #[test]
    fn the_table_names_the_leader_and_what_is_down() {
        let draining = Member { draining: true, ..member("n3", MemberState::Up) };
        let text = member_table(&[member("n1", MemberState::Up), member("n2", MemberState::Down), draining]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["n1", "leader", "up", "127.0.0.1:1883"]);
        assert_eq!(lines[2][..3], ["n2", "voter", "down"]);
        assert_eq!(lines[3][..3], ["n3", "voter", "draining"]);
        assert_eq!(lines[1].len(), lines[0].len());
    }

    #[test]
    fn the_table_of_a_rotation_says_how_far_each_member_is() {
        let member = |name: &str, state, fingerprint: Option<&str>| CaMember {
            name: name.to_owned(),
            state,
            fingerprint: fingerprint.map(str::to_owned),
        };
        let members = vec![
            member("n1", CaState::TrustsOld, Some("bb")),
            member("n2", CaState::TrustsNext, Some("aa")),
            member("n3", CaState::Unreachable, None),
        ];
        let text = ca_table(&CaStatus { fingerprint: "bb".to_owned(), rotating: true, members });
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1..],
            [vec!["n1", "trusts_old", "bb"], vec!["n2", "trusts_next", "aa"], vec!["n3", "unreachable", "-"]]
        );
    }

    #[test]
    fn documents_keep_their_words() {
        let json = serde_json::to_value(member("n2", MemberState::Down)).expect("JSON");
        assert_eq!((&json["role"], &json["state"]), (&json!("voter"), &json!("down")));
    }

    #[test]
    fn tokens_come_from_files_without_their_line_end() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"secret\n").expect("written");
        assert_eq!(read_token(Some(file.path())).expect("read"), "secret");
        let missing = read_token(Some(Path::new("/nonexistent"))).expect_err("refused");
        assert_eq!(missing.exit, Exit::Usage);
    }
}
