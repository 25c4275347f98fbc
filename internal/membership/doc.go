// Package membership decides who is in Raft's configuration. It runs in every node.
//
// Gossip proposes, Raft's configuration is the truth, and only the leader changes it:
//
//   - a fresh node forms a cluster with others, or asks one to join it; the leader asks the
//     node itself whether it does, and makes it a nonvoter;
//   - the leader watches its health and makes it a voter once it is caught up and has been
//     stable for a while; a voter that was started again as a nonvoter loses its vote;
//   - a member whose address changed is followed, one change at a time;
//   - a member that failed, for gossip and for Raft, is removed after
//     Config.RemoveFailedAfter, or after Config.RemoveReplacedAfter where a replacement
//     votes. A member that leaves requests its own removal; no other node does that for it.
//
// Strangers can write to gossip, so gossip decides nothing: that a member wants no vote, or
// has another address, it has to confirm itself, on a call that it answers under its ID at
// the address in the configuration or at the one where Raft reaches it.
//
// Addresses are used again, also between members that both stay: an address is where to
// try a member, and the handshake shows whether it is there. Raft's configuration refuses
// equal addresses, so addresses in it begin with the member's ID, see
// [network.MemberAddress].
//
// # Votes and removals
//
// These are all the rules. Each is checked at the moment of the change, on the committed
// configuration, after a barrier that shows that this node leads. What was seen earlier is
// only a reason to check.
//
//   - Well. A member is well at a look if, asked then, it answers under its ID where the
//     configuration has it, follows this leader in this term, is at most maxLag entries
//     behind what the leader had before it asked, and is not waiting to have its joining
//     in its log (it does not vote before). No answer in time is "not well", whatever the
//     last one was.
//   - Stable. It is stable once it has been well at every look for times.stable. Looks
//     belong to one epoch: a new leader starts all clocks anew, so changes of leaders do
//     not help a node that comes and goes to a vote.
//   - Promote. A stable nonvoter that wants a vote gets one, if a majority of the voters
//     that there would be then answers Raft. A second voter that does not run would stop a
//     cluster of one for good.
//   - Demote. A voter that says, also when it is asked again, that it wants no vote loses
//     it, if a majority of the others answers. In a round that promotes, nobody is demoted.
//     The leader is not demoted.
//   - Remove. A member is removed when it has been gone for long enough, for gossip and
//     for Raft, whichever heard it last. That it has left in gossip makes no difference.
//     Nonvoters go first. It stays if it answers Raft after all, or if no majority of the
//     rest does.
//
// One change is made at a time, and the next one is decided on its result. A majority of
// the voters before a change and one of those after it then have a member in common, and
// since a majority answers after each change, no sequence of them ends in a cluster that
// cannot commit. So nothing else bounds how many members a round may remove: that it is
// less than half of the voters follows, for without a majority there is no leader that
// could remove. Leadership is never moved for membership, but for one case: the node has a
// leader that is to be removed hand it over first.
//
// Rejected: a library for it (raft-autopilot). It removes members that have failed in
// gossip at once, and members that have the same address, and acts on what it saw some
// seconds ago. All that was left of it was the time since when a member is healthy.
//
// # Files
//
//   - manager.go: what does the package need and offer, and when does its work end?
//   - configuration.go: what does Raft's configuration say?
//   - change.go: how is one change of it made, or a member removed on request?
//   - contact.go: do enough voters answer for a change?
//   - form.go: how does a node without data get into a cluster?
//   - join.go: which nodes may join, and are removed again if Raft does not reach them?
//   - autopilot.go: which members are well, which get a vote, and which lose it?
//   - level.go: when does the table get another feature level?
//   - removal.go: which failed member is removed, and when?
//   - move.go: what if a member has another address?
//   - whereabouts.go: where is a member, for calls and for Raft?
//   - electorate.go: who votes, and which voters do not answer?
//   - removed.go: was this node removed?
//
// # Goroutines
//
// Lead starts those of an epoch (run and its loops), which end with it. Join and Remove
// start one for the change, which may outlive the caller. A member is asked at its home on
// a goroutine of its own. Close waits for all of them.
package membership
