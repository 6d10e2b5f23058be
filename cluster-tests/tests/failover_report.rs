//! The report about failover in a shortened form: the program works, and nothing is lost. The
//! figures of a debug build on a machine that does other things too are not held against it.

use cluster_tests::cluster::Cluster;
use cluster_tests::failover::{Figure, Machine, Role, measure, page};

#[test]
fn the_report_measures_everything_and_finds_nothing_lost() {
    let mut cluster = Cluster::start(3);
    let all = Role::ALL.map(|role| measure(&mut cluster, role, 2));
    for figures in &all {
        assert_eq!(figures.wrong(), 0, "{}", figures.to_json());
        assert_eq!(figures.kills, 2);
        for figure in Figure::ALL {
            assert!(figures.count(figure) >= 2, "{figure:?} when the {} dies", figures.role);
        }
        assert!(figures.of_load("delivered") > figures.of_load("acknowledged"), "{}", figures.to_json());
        assert!(figures.quantile(Figure::Will, 0.0) > 0.0);
    }
    assert_eq!((all[0].leaders, all[1].leaders), (2, 0));
    let page = page(&all, &Machine::here(cluster.path()).expect("writable"), "rookery");
    assert!(page.contains("| **acknowledged and lost** | 0 | 0 | 0 |"), "{page}");
}
