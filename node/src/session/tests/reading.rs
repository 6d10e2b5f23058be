use std::sync::atomic::Ordering;

use proptest::prelude::*;

use crate::mqtt::{Connect, Disconnect, QoS, ReasonCode, SubscribeFilter, Version, encode};
use crate::session::testing::{Harness, encoded, publish_bytes};
use crate::session::{Flow, Limits};

/// A client's whole life as bytes.
fn a_life(version: Version) -> Vec<u8> {
    let mut bytes = encoded(|buf| {
        encode::connect(buf, &Connect { client_id: "life", ..Connect::new(version) }).expect("fits");
        let filter = SubscribeFilter { filter: "none/of/it", options: Default::default() };
        encode::subscribe(buf, version, 1, 0, &[filter]).expect("fits");
    });
    for id in 1..20 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(id % 3)];
        let payload = vec![b'x'; usize::from(id) * 37];
        bytes.extend(publish_bytes(version, "some/topic", &payload, qos, id));
        if qos == QoS::ExactlyOnce {
            encode::pubrel(&mut bytes, version, id, ReasonCode::Success);
        }
    }
    encode::pingreq(&mut bytes);
    if version == Version::V5 {
        assert!(encode::disconnect(&mut bytes, &Disconnect::default(), u32::MAX));
    } else {
        encode::disconnect_v3(&mut bytes);
    }
    bytes
}

fn live(bytes: &[u8], cuts: &[usize], version: Version, held: bool) -> (Vec<String>, Vec<String>, Flow) {
    let mut h = Harness::new(Limits::default());
    h.version = version;
    h.service.hold_connect.store(held, Ordering::Relaxed);
    let mut flow = Flow::Open;
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let cut = cut.clamp(at, bytes.len());
        flow = h.send(&bytes[at..cut]);
        at = cut;
    }
    if held && !h.service.conns.lock().is_empty() {
        h.conn.accept(h.service.grant("life"));
        flow = h.inbound.attend(&h.conn, 0);
    }
    h.inbound.end(&h.conn);
    h.service.subscribers.lock().clear();
    (h.service.take_calls(), h.take(), flow)
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_calls_and_answers(
        mut cuts in proptest::collection::vec(0usize..9000, 0..40),
        v5 in any::<bool>(),
        held in any::<bool>(),
    ) {
        cuts.sort_unstable();
        let version = if v5 { Version::V5 } else { Version::V311 };
        let bytes = a_life(version);
        prop_assert_eq!(live(&bytes, &cuts, version, held), live(&bytes, &[], version, false));
    }

    #[test]
    fn rubbish_never_harms(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let mut whole = a_life(Version::V5);
        whole.truncate(60 + cut);
        whole.extend(&bytes);
        live(&whole, &[cut], Version::V5, false);
        live(&bytes, &[cut], Version::V311, false);
    }
}

#[test]
fn byte_by_byte() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let bytes = a_life(version);
        let cuts: Vec<_> = (0..bytes.len()).collect();
        let whole = live(&bytes, &[], version, false);
        assert_eq!(whole.2, Flow::Over);
        assert_eq!(whole.0.len(), 1 + 1 + 19 + 1, "{:?}", whole.0);
        assert_eq!(live(&bytes, &cuts, version, false), whole);
    }
}

#[test]
fn a_packet_above_the_limit_is_refused_by_its_header() {
    let mut h = Harness::connected(Version::V5, Limits { packet_max_bytes: 100, ..Limits::default() }, false);
    assert!(matches!(h.send(&[0x30, 99]), Flow::Broken(_)));
    assert_eq!(h.take(), ["DISCONNECT 95"]);
    let mut h = Harness::connected(Version::V5, Limits { packet_max_bytes: 100, ..Limits::default() }, false);
    assert_eq!(h.send(&[0x30, 98]), Flow::Open);
}

#[test]
fn a_flood_is_worked_off_in_turns_and_in_order() {
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    let flood: Vec<u8> = (0..5_000)
        .flat_map(|n: u32| publish_bytes(Version::V311, "t", n.to_string().as_bytes(), QoS::AtMostOnce, 0))
        .collect();
    h.inbound.begin_turn();
    let mut flow = h.inbound.feed(&h.conn, &flood, 0);
    let (mut turns, mut done) = (0, Vec::new());
    while flow == Flow::Yield {
        turns += 1;
        let calls = h.service.take_calls();
        assert!(calls.len() < 1_000, "{} publishes in one turn", calls.len());
        done.extend(calls);
        // What is read without a turn is kept.
        assert_eq!(h.inbound.feed(&h.conn, &[0xC0], 0), Flow::Yield);
        assert_eq!(h.inbound.feed(&h.conn, &[0], 0), Flow::Yield);
        assert_eq!(h.service.take_calls(), [""; 0]);
        h.inbound.begin_turn();
        flow = h.inbound.feed(&h.conn, &[], 0);
    }
    done.extend(h.service.take_calls());
    assert_eq!(flow, Flow::Open);
    assert!(turns > 5, "{turns}");
    assert_eq!(done.len(), 5_000);
    for (n, call) in done.iter().enumerate() {
        assert!(call.starts_with(&format!("publish t {n} q0")), "{call}");
    }
    assert_eq!(h.take().len(), turns, "the pings that came meanwhile");
}
