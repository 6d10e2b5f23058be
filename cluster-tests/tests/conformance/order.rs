//! The order of messages.

use cluster_tests::conformance::{Case, Outcome, Site, case};

pub const CASES: &[Case] = &[case("per publisher, topic and QoS the order is kept", order_is_kept)
    .v3(&["4.6.0-5", "4.6.0-6", "4.2.0-1", "7.1.1-1"])
    .v5(&["4.6.0-5", "4.6.0-6", "4.2-1", "7.1.1-1"])];

fn order_is_kept(at: &Site) -> Outcome {
    const COUNT: usize = 100;
    for qos in 0..=2 {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, qos)?;
        let mut publisher = at.client()?;
        for i in 0..COUNT {
            publisher.publish(&topic, i.to_string(), qos)?;
        }
        for i in 0..COUNT {
            let message = at.recv(&mut subscriber)?;
            assert_eq!((message.text(), message.qos), (i.to_string(), qos));
        }
    }
    Ok(())
}
