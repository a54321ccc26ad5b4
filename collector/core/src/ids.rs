//! Identifiers that never cross the agent wire.

use watchkeep_shared::uuid_newtype;

uuid_newtype! {
    /// A customer organisation.
    ClientId
}
uuid_newtype! {
    /// What was sold to a client.
    ContractId
}
uuid_newtype! {
    /// A place or network of a client.
    SiteId
}
uuid_newtype! {
    /// One breach of one rule on one check.
    AlertId
}
uuid_newtype! {
    /// One piece of work for people.
    TicketId
}
uuid_newtype! {
    /// A person who signs in.
    UserId
}
