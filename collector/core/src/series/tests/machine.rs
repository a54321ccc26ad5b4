//! An hour as a real machine makes it.

use super::*;

/// xorshift64*: numbers that are the same on every machine.
struct Noise(u64);

impl Noise {
    /// Evenly within 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// How a metric of a real machine moves.
#[derive(Clone, Copy)]
enum Motion {
    /// Around a level, as CPU shares do.
    Around { level: f64, spread: f64 },
    /// A walk in whole pages, as memory does.
    Pages { step: f64 },
    /// Mostly nothing, now and then something: rates of a quiet disk or interface.
    Bursts { size: f64 },
    /// Slow drift in hundredths: disk shares, load.
    Drift { step: f64 },
    /// Always the same: totals, counts, read-only flags.
    Still { value: f64 },
    /// Up by the interval: uptime.
    Rising,
}

const MOTIONS: [(usize, Motion); 12] = [
    (
        6,
        Motion::Around {
            level: 8.0,
            spread: 1.5,
        },
    ),
    (
        4,
        Motion::Around {
            level: 0.5,
            spread: 0.2,
        },
    ),
    (6, Motion::Pages { step: 60.0 }),
    (12, Motion::Bursts { size: 40_000.0 }),
    (8, Motion::Bursts { size: 0.0 }),
    (6, Motion::Drift { step: 0.02 }),
    (4, Motion::Drift { step: 0.1 }),
    (
        10,
        Motion::Still {
            value: 33_554_432_000.0,
        },
    ),
    (3, Motion::Still { value: 0.0 }),
    (
        2,
        Motion::Around {
            level: 180.0,
            spread: 3.0,
        },
    ),
    (1, Motion::Rising),
    (1, Motion::Pages { step: 4.0 }),
];

/// One hour of a machine at 10 s: 360 rows of 63 values.
pub(super) fn hour(seed: u64) -> Vec<Row> {
    let mut noise = Noise(seed);
    let motions: Vec<Motion> = MOTIONS
        .iter()
        .flat_map(|(count, motion)| std::iter::repeat_n(*motion, *count))
        .collect();
    let mut walks: Vec<f64> = motions.iter().map(|_| 1_000.0 * noise.unit()).collect();
    let mut rows = Vec::new();
    for beat in 0..360_i64 {
        let values = motions.iter().zip(&mut walks).map(|(motion, walk)| {
            let value = match *motion {
                Motion::Around { level, spread } => (level + spread * noise.normal()).max(0.0),
                Motion::Pages { step } => {
                    *walk = (*walk + step * noise.normal()).max(0.0);
                    (*walk + 100_000.0).floor() * 4_096.0
                }
                Motion::Bursts { size } if noise.unit() < 0.3 => size * noise.unit(),
                Motion::Bursts { .. } => 0.0,
                Motion::Drift { step } => {
                    *walk = (*walk + step * noise.normal()).max(0.0);
                    *walk
                }
                Motion::Still { value } => value,
                Motion::Rising => 100_000.0 + 10.0 * beat as f64,
            };
            to_hundredths(Some(value))
        });
        let values = values.collect();
        let jitter = (noise.unit() * 4.0) as i64;
        rows.push(Row {
            at: UnixMillis(1_700_000_000_000 + beat * 10_000 + jitter),
            schema: SchemaId(1),
            values,
        });
    }
    rows
}
