//! Latencies, in buckets about 6 % wide.

const SUB_BITS: u32 = 4;
const BUCKETS: usize = 64 << SUB_BITS;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0 }
    }

    pub fn record(&mut self, value_us: u64) {
        self.counts[bucket(value_us)] += 1;
        self.total += 1;
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The value below which `share` (0 to 1) of all lie; 0 when there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let want = (self.total as f64 * share).ceil() as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= want.max(1) {
                return lower_bound(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    let high = 63 - (value | 1).leading_zeros();
    if high < SUB_BITS {
        return value as usize;
    }
    let shift = high - SUB_BITS;
    (((shift + 1) as usize) << SUB_BITS) + (value >> shift) as usize - (1 << SUB_BITS)
}

fn lower_bound(index: usize) -> u64 {
    let (row, column) = (index >> SUB_BITS, (index & ((1 << SUB_BITS) - 1)) as u64);
    if row == 0 { column } else { (column + (1 << SUB_BITS)) << (row - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_values_and_quantiles_find_them() {
        for value in (0..5_000).chain([1 << 20, 1 << 40]) {
            let at = bucket(value);
            assert!(lower_bound(at) <= value, "{value}");
            assert!(at + 1 >= BUCKETS || lower_bound(at + 1) > value, "{value}");
        }
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|value| histogram.record(value));
        let (median, high) = (histogram.quantile(0.5), histogram.quantile(0.99));
        assert!((470..=500).contains(&median) && (930..=990).contains(&high), "{median} {high}");
    }
}
