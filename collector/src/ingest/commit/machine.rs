//! Keeps with each host what its agent reported about the machine last, where searches find it.

use watchkeep_shared::wire::heartbeat::Event;

use crate::store::{
    StoreError, Tx,
    descriptions::{self, Machine},
    record::NewEvent,
};

/// Records what these events say of their hosts' machines; the events are stored already.
pub(super) async fn write(tx: &mut Tx, events: &[NewEvent]) -> Result<(), StoreError> {
    for event in events.iter().filter(|event| event.kind == "host_facts") {
        let Ok(Event::HostFacts(facts)) = serde_json::from_str(&event.detail) else {
            continue;
        };
        let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
        let machine = Machine {
            host: event.host,
            system: facts.os.as_deref().unwrap_or_default(),
            addresses: &addresses.join(" "),
            at: event.at,
        };
        descriptions::set_machine(tx, &machine).await?;
    }
    Ok(())
}
