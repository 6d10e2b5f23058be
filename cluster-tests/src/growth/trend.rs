//! A line through measurements.

/// The slope of the straight line that fits the points `(x, y)` best, by least squares.
///
/// # Panics
/// When there are fewer than two different x.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in points {
        xy += (x - mx) * (y - my);
        xx += (x - mx) * (x - mx);
    }
    assert!(xx > 0.0, "no line through {points:?}");
    xy / xx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_and_of_noise_around_one() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        let noisy: Vec<(f64, f64)> =
            line.iter().map(|(x, y)| (*x, y + [0.1, -0.1][*x as usize % 2])).collect();
        assert!((slope(&noisy) - 2.0).abs() < 0.02);
    }
}
