use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::messages::*;
use super::nodes::*;
use super::settings::*;
use super::*;

/// Answers as told and notes what it was asked.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    ready: bool,
    started: bool,
    cluster: ClusterStatus,
    fails: Option<ErrorKind>,
}

impl Fake {
    fn answer<T: Send + 'static>(&self, asked: String, value: T) -> Answer<'_, T> {
        self.asked.lock().push(asked);
        let result = match self.fails {
            Some(kind) => Err(ControlError::new(kind, "told to fail")),
            None => Ok(value),
        };
        Box::pin(async move { result })
    }

    fn a_status(&self) -> ClusterStatus {
        ClusterStatus { node: "n1".to_owned(), ..self.cluster.clone() }
    }
}

impl Settings for Fake {
    fn users(&self, cursor: Option<String>, limit: usize) -> Answer<'_, UserPage> {
        self.answer(format!("users {cursor:?} {limit}"), UserPage::default())
    }
    fn set_user(&self, by: String, name: String, user: UserRequest) -> Answer<'_, ()> {
        self.answer(format!("set user {name} {} by {by}", user.password.is_some()), ())
    }
    fn remove_user(&self, _: String, name: String) -> Answer<'_, ()> {
        self.answer(format!("remove user {name}"), ())
    }
    fn rules(&self) -> Answer<'_, RuleList> {
        self.answer("rules".to_owned(), RuleList::default())
    }
    fn set_rules(&self, _: String, rules: RulesRequest) -> Answer<'_, RuleList> {
        self.answer(format!("set {} rules {:?}", rules.rules.len(), rules.revision), RuleList::default())
    }
    fn bans(&self, cursor: Option<String>, limit: usize) -> Answer<'_, BanPage> {
        self.answer(format!("bans {cursor:?} {limit}"), BanPage::default())
    }
    fn ban(&self, _: String, kind: String, value: String, ban: BanRequest) -> Answer<'_, ()> {
        self.answer(format!("ban {kind} {value} {:?}", ban.for_s), ())
    }
    fn lift_ban(&self, _: String, kind: String, value: String) -> Answer<'_, ()> {
        self.answer(format!("lift {kind} {value}"), ())
    }
    fn check(&self, check: CheckRequest) -> Answer<'_, Checked> {
        self.answer(format!("check {} {}", check.action, check.topic), Checked::default())
    }
}

impl Nodes for Fake {
    fn nodes(&self) -> Answer<'_, NodeList> {
        self.answer("nodes".to_owned(), NodeList::default())
    }
    fn node(&self, node: String) -> Answer<'_, NodeInfo> {
        self.answer(format!("node {node}"), a_node(&node))
    }
    fn drain(&self, by: String, node: String, request: DrainRequest) -> Answer<'_, NodeInfo> {
        self.answer(format!("drain {node} {:?} by {by}", request.rate_per_s), a_node(&node))
    }
    fn undrain(&self, _: String, node: String) -> Answer<'_, NodeInfo> {
        self.answer(format!("undrain {node}"), a_node(&node))
    }
    fn decommission(&self, _: String, node: String, request: DecommissionRequest) -> Answer<'_, ()> {
        self.answer(format!("decommission {node} {:?} {}", request.rate_per_s, request.timeout_s), ())
    }
}

impl Messages for Fake {
    fn list_retained(
        &self,
        filter: String,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, RetainedPage> {
        self.answer(format!("list {filter} {cursor:?} {limit}"), RetainedPage::default())
    }
    fn retained(&self, topic: String) -> Answer<'_, RetainedMessage> {
        self.answer(format!("retained {topic}"), RetainedMessage::default())
    }
    fn remove_retained(&self, by: String, topic: String) -> Answer<'_, ()> {
        self.answer(format!("remove {topic} by {by}"), ())
    }
    fn publish(&self, by: String, messages: Vec<PublishRequest>) -> Answer<'_, PublishedList> {
        let topics: Vec<&str> = messages.iter().map(|message| &*message.topic).collect();
        self.answer(format!("publish {topics:?} by {by}"), PublishedList::default())
    }
}

fn a_node(name: &str) -> NodeInfo {
    NodeInfo {
        id: "00000000000000aa".to_owned(),
        name: name.to_owned(),
        role: Role::Voter,
        state: MemberState::Up,
        leader: false,
        draining: None,
        clients: 0,
        mqtt_addr: String::new(),
        api_addr: String::new(),
        server_reference: String::new(),
        version: String::new(),
    }
}

impl Control for Fake {
    fn status(&self) -> Answer<'_, ClusterStatus> {
        self.answer("status".to_owned(), self.a_status())
    }
    fn init(&self) -> Answer<'_, ClusterStatus> {
        self.answer("init".to_owned(), self.a_status())
    }
    fn token(&self, ttl_s: u64) -> Answer<'_, JoinToken> {
        let token = JoinToken { token: "t".to_owned(), expires_in_s: ttl_s };
        self.answer(format!("token {ttl_s}"), token)
    }
    fn join(&self, seeds: Vec<String>, token: String) -> Answer<'_, ClusterStatus> {
        self.answer(format!("join {seeds:?} {token}"), self.a_status())
    }
    fn leave(&self) -> Answer<'_, ()> {
        self.answer("leave".to_owned(), ())
    }
    fn forget(&self, node: String, force: bool) -> Answer<'_, ()> {
        self.answer(format!("forget {node} {force}"), ())
    }
    fn transfer_leader(&self, to: Option<String>) -> Answer<'_, NewLeader> {
        self.answer(format!("transfer {to:?}"), NewLeader { leader: "n2".to_owned() })
    }
    fn ca(&self) -> Answer<'_, CaStatus> {
        self.answer("ca".to_owned(), CaStatus::default())
    }
    fn rotate_ca(&self, force: bool) -> Answer<'_, CaStatus> {
        self.answer(format!("rotate {force}"), CaStatus::default())
    }
    fn ready(&self) -> Readiness {
        let reasons = if self.ready { vec![] } else { vec!["no lease".to_owned()] };
        Readiness { ready: self.ready, reasons }
    }
    fn started(&self) -> Startup {
        let reasons = if self.started { vec![] } else { vec!["of no cluster yet".to_owned()] };
        Startup { started: self.started, reasons }
    }
    fn clients(&self, cursor: Option<String>, limit: usize) -> Answer<'_, ClientPage> {
        self.answer(format!("clients {cursor:?} {limit}"), ClientPage::default())
    }
    fn client(&self, id: String) -> Answer<'_, ClientInfo> {
        self.answer(format!("client {id}"), ClientInfo { id, ..ClientInfo::default() })
    }
    fn kick(&self, id: String) -> Answer<'_, ()> {
        self.answer(format!("kick {id}"), ())
    }
    fn metrics_text(&self) -> String {
        encode(&registry())
    }
}

const LOCAL: &str = "127.0.0.1:5000";

struct Call {
    method: &'static str,
    path: &'static str,
    body: Option<Value>,
    peer: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

fn call(method: &'static str, path: &'static str) -> Call {
    Call { method, path, body: None, peer: LOCAL, headers: vec![("host", "127.0.0.1:18083")] }
}

impl Call {
    fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn from(mut self, peer: &'static str) -> Self {
        self.peer = peer;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value));
        self
    }

    async fn text(self, fake: &Arc<Fake>) -> (StatusCode, String) {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if self.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let peer: SocketAddr = self.peer.parse().expect("an address");
        let body = self.body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let request = request.extension(ConnectInfo(peer)).body(body).expect("a request");
        let router = router(fake.clone(), Hosts(vec!["node.example".to_owned()]));
        let response = router.oneshot(request).await.expect("infallible");
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }

    async fn send(self, fake: &Arc<Fake>) -> (u16, Value) {
        let (status, text) = self.text(fake).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")))
    }
}

#[tokio::test]
async fn each_route_asks_the_node() {
    let fake = Arc::new(Fake::default());
    let calls = [
        (call("GET", "/api/v1/cluster"), "status"),
        (call("POST", "/api/v1/cluster/init"), "init"),
        (call("POST", "/api/v1/cluster/token").json(json!({"ttl_s": 3600})), "token 3600"),
        (
            call("POST", "/api/v1/cluster/join").json(json!({"seeds": ["a:1"], "token": "x"})),
            "join [\"a:1\"] x",
        ),
        (call("POST", "/api/v1/cluster/leave"), "leave"),
        (call("POST", "/api/v1/cluster/forget").json(json!({"node": "n3"})), "forget n3 false"),
        (call("POST", "/api/v1/cluster/forget").json(json!({"node": "n3", "force": true})), "forget n3 true"),
        (call("POST", "/api/v1/cluster/transfer-leader"), "transfer None"),
        (call("POST", "/api/v1/cluster/transfer-leader").json(json!({"to": "n2"})), "transfer Some(\"n2\")"),
        (call("GET", "/api/v1/cluster/ca"), "ca"),
        (call("POST", "/api/v1/cluster/rotate-ca"), "rotate false"),
        (call("POST", "/api/v1/cluster/rotate-ca").json(json!({"force": true})), "rotate true"),
        (call("GET", "/api/v1/nodes"), "nodes"),
        (call("GET", "/api/v1/nodes/n2"), "node n2"),
        (call("POST", "/api/v1/nodes/@self/drain"), "drain @self None by api from 127.0.0.1:5000"),
        (
            call("POST", "/api/v1/nodes/n2/drain").json(json!({"rate_per_s": 50})),
            "drain n2 Some(50) by api from 127.0.0.1:5000",
        ),
        (call("POST", "/api/v1/nodes/n2/undrain"), "undrain n2"),
        (
            call("POST", "/api/v1/nodes/n2/decommission").json(json!({"timeout_s": 60})),
            "decommission n2 None 60",
        ),
        (call("GET", "/api/v1/clients"), "clients None 100"),
        (call("GET", "/api/v1/clients?cursor=a%2Fb&limit=5000"), "clients Some(\"a/b\") 1000"),
        (call("GET", "/api/v1/clients/a%2Fb%20c"), "client a/b c"),
        (call("DELETE", "/api/v1/clients/a%2Fb"), "kick a/b"),
        (call("GET", "/api/v1/retained"), "list # None 100"),
        (
            call("GET", "/api/v1/retained?filter=a%2F%2B&cursor=a%2Fb&limit=5000"),
            "list a/+ Some(\"a/b\") 1000",
        ),
        (call("GET", "/api/v1/retained/a%2Fb%20c"), "retained a/b c"),
        (call("GET", "/api/v1/retained/a/b"), "retained a/b"),
        (call("GET", "/api/v1/retained/%2Fa%2F"), "retained /a/"),
        (call("DELETE", "/api/v1/retained/a%2Fb"), "remove a/b by api from 127.0.0.1:5000"),
        (
            call("POST", "/api/v1/publish").json(json!({"topic": "a"})),
            "publish [\"a\"] by api from 127.0.0.1:5000",
        ),
        (
            call("POST", "/api/v1/publish").json(json!([{"topic": "a", "payload": "x"}, {"topic": "b"}])),
            "publish [\"a\", \"b\"] by api from 127.0.0.1:5000",
        ),
    ];
    for (call, asked) in calls {
        let (status, body) = call.send(&fake).await;
        assert_eq!((status, fake.asked.lock().last().map(String::as_str)), (200, Some(asked)), "{body}");
    }
}

#[tokio::test]
async fn failures_have_a_code_and_a_status() {
    let table = [
        (ErrorKind::Invalid, 400, "invalid"),
        (ErrorKind::Unauthorized, 403, "unauthorized"),
        (ErrorKind::NotFound, 404, "not_found"),
        (ErrorKind::Conflict, 409, "conflict"),
        (ErrorKind::Unsafe, 412, "unsafe"),
        (ErrorKind::Internal, 500, "internal"),
        (ErrorKind::Unavailable, 503, "unavailable"),
        (ErrorKind::Timeout, 504, "timeout"),
    ];
    for (kind, status, code) in table {
        let fake = Arc::new(Fake { fails: Some(kind), ..Fake::default() });
        let answer = call("POST", "/api/v1/cluster/init").send(&fake).await;
        assert_eq!(answer, (status, json!({"error": {"code": code, "message": "told to fail"}})));
    }
}

#[tokio::test]
async fn wrong_requests_are_told_so_and_not_passed_on() {
    let fake = Arc::new(Fake::default());
    for (call, status) in [
        (call("POST", "/api/v1/cluster/token").json(json!({})), 400),
        (call("POST", "/api/v1/cluster/token").json(json!({"ttl_s": 1})), 400),
        (call("POST", "/api/v1/cluster/token").json(json!({"ttl_s": 3600, "x": 1})), 400),
        (call("POST", "/api/v1/cluster/token"), 400),
        (call("POST", "/api/v1/cluster/join").json(json!({"seeds": [], "token": ""})), 400),
        (call("POST", "/api/v1/cluster/join").json(json!({"seeds": ["nowhere"], "token": ""})), 400),
        (call("POST", "/api/v1/nodes/n2/drain").json(json!({"rate_per_s": 0})), 400),
        (call("POST", "/api/v1/nodes/n2/drain").json(json!({"rate_per_s": 1_000_001})), 400),
        (call("POST", "/api/v1/nodes/n2/drain").json(json!({"rate": 1})), 400),
        (call("POST", "/api/v1/nodes/n2/decommission"), 400),
        (call("POST", "/api/v1/nodes/n2/decommission").json(json!({"timeout_s": 86_401})), 400),
        (call("GET", "/api/v1/clients?limit=x"), 400),
        (call("GET", "/api/v1/retained?limit=x"), 400),
        (call("GET", "/api/v1/retained?topic=x"), 400),
        (call("POST", "/api/v1/publish"), 400),
        (call("POST", "/api/v1/publish").json(json!([])), 400),
        (call("POST", "/api/v1/publish").json(json!({"topic": "a", "text": "x"})), 400),
        (call("POST", "/api/v1/publish").json(json!(vec![json!({"topic": "a"}); 1_001])), 400),
        (call("GET", "/api/v1/nothing"), 404),
        (call("GET", "/nothing"), 404),
        (call("GET", "/api/v1/cluster/init"), 405),
        (call("POST", "/livez"), 405),
    ] {
        let path = call.path;
        let (got, body) = call.send(&fake).await;
        assert_eq!(got, status, "{path} {body}");
        assert!(body["error"]["message"].is_string(), "{body}");
    }
    assert!(fake.asked.lock().is_empty());
}

#[tokio::test]
async fn only_this_machine_may_change_things() {
    let fake = Arc::new(Fake::default());
    for peer in ["192.0.2.1:5000", "[2001:db8::1]:5000"] {
        let (status, body) = call("POST", "/api/v1/cluster/leave").from(peer).send(&fake).await;
        assert_eq!((status, &body["error"]["code"]), (403, &json!("unauthorized")));
        let (status, _) = call("DELETE", "/api/v1/clients/a").from(peer).send(&fake).await;
        assert_eq!(status, 403);
        assert_eq!(call("GET", "/api/v1/cluster").from(peer).send(&fake).await.0, 200);
        // What is retained is nobody else's business.
        for (method, path) in [
            ("GET", "/api/v1/retained"),
            ("GET", "/api/v1/retained/a"),
            ("DELETE", "/api/v1/retained/a"),
            ("POST", "/api/v1/publish"),
        ] {
            assert_eq!(call(method, path).from(peer).send(&fake).await.0, 403, "{method} {path}");
        }
    }
    let proxied = call("POST", "/api/v1/cluster/leave").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(proxied.send(&fake).await.0, 403);
    let mapped = call("POST", "/api/v1/cluster/leave").from("[::ffff:127.0.0.1]:5000");
    assert_eq!(mapped.send(&fake).await.0, 200);
}

#[tokio::test]
async fn what_is_logged_is_changed_from_this_machine_only_and_for_a_bounded_time() {
    let fake = Arc::new(Fake::default());
    let change = |for_s: u64| json!({"filter": "debug", "for_s": for_s});
    for for_s in [0, crate::logging::FOR_MAX_S + 1] {
        assert_eq!(call("PUT", "/api/v1/log").json(change(for_s)).send(&fake).await.0, 400, "{for_s}");
    }
    for method in ["PUT", "DELETE"] {
        let call = call(method, "/api/v1/log").json(change(1)).from("192.0.2.1:5000");
        assert_eq!(call.send(&fake).await.0, 403, "{method}");
    }
    // Nothing has started logging in this process.
    assert_eq!(call("GET", "/api/v1/log").send(&fake).await.0, 503);
}

#[tokio::test]
async fn web_pages_of_other_origins_are_refused() {
    let fake = Arc::new(Fake::default());
    for host in ["evil.example", "evil.example:18083", "", "127.0.0.1.evil.example", "[::1]evil"] {
        let (status, _) = call("GET", "/api/v1/cluster").header("host", host).send(&fake).await;
        assert_eq!(status, 403, "{host:?}");
    }
    for host in ["localhost:18083", "LOCALHOST", "[::1]:18083", "[::1]", "10.0.0.1", "node.example:18083"] {
        let (status, _) = call("GET", "/api/v1/cluster").header("host", host).send(&fake).await;
        assert_eq!(status, 200, "{host:?}");
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:9"] {
        let (status, _) = call("POST", "/api/v1/cluster/leave").header("origin", origin).send(&fake).await;
        assert_eq!(status, 403, "{origin:?}");
    }
    let own = call("POST", "/api/v1/cluster/leave").header("origin", "http://127.0.0.1:18083");
    assert_eq!(own.send(&fake).await.0, 200);
}

#[tokio::test]
async fn probes_need_no_host_and_say_why_not() {
    let probe = |path| Call { headers: vec![], peer: "192.0.2.1:1", ..call("GET", path) };
    let fake = Arc::new(Fake::default());
    assert_eq!(probe("/livez").send(&fake).await, (200, json!({"live": true})));
    assert_eq!(probe("/readyz").send(&fake).await, (503, json!({"ready": false, "reasons": ["no lease"]})));
    let no_cluster = (503, json!({"started": false, "reasons": ["of no cluster yet"]}));
    assert_eq!(probe("/startupz").send(&fake).await, no_cluster);
    let fake = Arc::new(Fake { ready: true, started: true, ..Fake::default() });
    assert_eq!(probe("/startupz").send(&fake).await, (200, json!({"started": true, "reasons": []})));
    assert_eq!(probe("/readyz").send(&fake).await, (200, json!({"ready": true, "reasons": []})));
    let (status, text) = probe("/metrics").text(&fake).await;
    assert_eq!(status, 200);
    assert!(text.contains("rookery_build_info{version=") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn the_health_of_the_cluster_says_what_is_wrong() {
    let member = |name: &str, state| Member {
        id: String::new(),
        name: name.to_owned(),
        role: Role::Voter,
        state,
        draining: false,
        peer_addr: String::new(),
        api_addr: String::new(),
        mqtt_addr: String::new(),
        ws_addr: String::new(),
        applied: 0,
        lag: 0,
        version: String::new(),
        leader: false,
        trouble: None,
    };
    let (up, down) = (member("n1", MemberState::Up), member("n2", MemberState::Down));
    let ailing = Member { trouble: Some("its disk is full".to_owned()), ..member("n3", MemberState::Up) };
    let none = ClusterStatus::default();
    let well = ClusterStatus {
        cluster_id: Some("c".to_owned()),
        leader: Some("n1".to_owned()),
        members: vec![up.clone()],
        ..none.clone()
    };
    let table = [
        (none, vec!["n1 is of no cluster yet"]),
        (well.clone(), vec![]),
        (ClusterStatus { members: vec![], ..well.clone() }, vec!["no members are known"]),
        (ClusterStatus { leader: None, ..well.clone() }, vec!["no leader is known"]),
        (
            ClusterStatus { members: vec![up, down, ailing], ..well },
            vec!["n2 is down", "n3: its disk is full"],
        ),
    ];
    for (cluster, reasons) in table {
        let fake = Arc::new(Fake { cluster, ..Fake::default() });
        let healthy = reasons.is_empty();
        let probe = Call { headers: vec![], peer: "192.0.2.1:1", ..call("GET", "/cluster/healthz") };
        let status = if healthy { 200 } else { 503 };
        assert_eq!(probe.send(&fake).await, (status, json!({"healthy": healthy, "reasons": reasons})));
    }
}

#[tokio::test]
async fn serving_ends_on_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(serve(listener, Arc::new(Fake::default()), Hosts::default(), shutdown));
    drop(stop);
    serving.await.expect("no panic").expect("no error");
}
