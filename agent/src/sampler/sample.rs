//! What a cycle gives: values, and the list of names that they belong to, which seldom changes.

use std::sync::Arc;

use watchkeep_shared::{ids::SchemaId, metric, wire::limits::MAX_VALUES_PER_FRAME};

/// A list of metric names and its identifier.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedSchema {
    /// Identifies the names.
    pub id: SchemaId,
    /// The names, in the order of a sample's values.
    pub names: Vec<String>,
}

/// The values of one cycle.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which names they belong to.
    pub schema: Arc<NamedSchema>,
    /// The values, rounded to hundredths; `None` where a reading failed.
    pub values: Vec<Option<f64>>,
}

/// The names of the last cycle.
#[derive(Debug, Default)]
pub(super) struct Names {
    schema: Option<Arc<NamedSchema>>,
    /// The schema's names joined by newlines, to see whether they changed.
    joined: String,
}

impl Names {
    /// How many bytes and values the last cycle had.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let values = self.schema.as_ref().map_or(0, |s| s.names.len());
        (self.joined.len(), values)
    }

    /// The sample of a cycle with these names, joined by newlines, and values.
    pub(super) fn sample(&mut self, joined: String, mut values: Vec<Option<f64>>) -> Sample {
        let known = (joined == self.joined).then(|| self.schema.clone());
        let schema = known.flatten().unwrap_or_else(|| {
            let names: Vec<String> = joined
                .split('\n')
                .take(MAX_VALUES_PER_FRAME)
                .map(str::to_owned)
                .collect();
            Arc::new(NamedSchema {
                id: metric::schema_id(&names),
                names,
            })
        });
        self.schema = Some(schema.clone());
        self.joined = joined;
        values.truncate(MAX_VALUES_PER_FRAME);
        Sample { schema, values }
    }
}
