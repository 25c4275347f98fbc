package node

import (
	"cmp"
	"strconv"
	"strings"
	"unicode"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/audit"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/server"
)

// What does this node record? What its clients do the server records (package server), what
// the program does that the node runs in and what happens to the node is recorded here, what
// happens in the table in grants.go.

// openAudit begins to record, if that is wanted. The node's ID is known.
func (n *Node) openAudit() {
	if n.cfg.Audit.To == nil {
		return
	}
	n.audit = audit.New(audit.Options{
		To: n.cfg.Audit.To, Refuse: n.cfg.Audit.Refuse, Logger: n.log, Now: n.cfg.seams.Wall,
		Node:    func() (node, cluster string) { return n.id, n.clusterID() },
		Written: func(records int) { n.metrics.audited.Add(float64(records)) },
		Lost:    func(records int) { n.metrics.unaudited.Add(float64(records)) },
	})
	if n.cfg.Audit.Grants {
		n.grants = newGrantLog(n.audit, n.servesTerm)
	}
}

// noted records what the server says: everything that was refused to a caller, and everything that
// was done with the right force or admin, once for each and on the node that received it.
func (n *Node) noted(e server.Event) { n.audit.Put(recordOf(&e)) }

// begins implements [server.Config.Begin].
func (n *Node) begins(e server.Event, then func(error)) { n.audit.Begin(recordOf(&e), then) }

func recordOf(e *server.Event) audit.Record {
	r := audit.Record{
		Event: eventName(e.Operation), Token: e.Token, Reason: e.Reason, Index: e.Index,
		Who:     audit.Who{Identity: string(e.Identity), Address: e.Remote, Serial: e.Serial, Accessor: e.Accessor},
		Outcome: e.Code.String(), Error: e.Message,
	}
	if len(e.Names) == 1 {
		r.Name = e.Names[0]
	} else {
		r.Names = e.Names
	}
	for i, value := range e.Values[:min(len(e.Values), len(e.Names))] {
		r.Notes = append(r.Notes, audit.Note{Key: e.Names[i], Value: strconv.FormatInt(value, 10)})
	}
	if e.Refused {
		r.Notes = append(r.Notes, audit.Note{Key: "operation", Value: r.Event})
		if r.Event = audit.EventDenied; !e.Enforced {
			r.Event = audit.EventNotDenied
		}
	}
	return r
}

// eventName is the name of an operation or call in lines: set_limits for SetLimits.
func eventName(operation string) string {
	var b strings.Builder
	for i, c := range operation {
		if unicode.IsUpper(c) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// itself is who does what nobody has asked for.
func (n *Node) itself() audit.Who { return audit.Who{Identity: "node:" + n.id} }

// note records what happened to this node, or what it has done by itself.
func (n *Node) note(event, name string, index uint64, notes ...audit.Note) {
	n.audit.Put(audit.Record{Event: event, Who: n.itself(), Name: name, Index: index, Outcome: audit.OutcomeOK, Notes: notes})
}

// noteStart records that the node serves, and that its directory is new because it was
// re-seeded.
func (n *Node) noteStart() {
	n.note(audit.EventStart, "", 0,
		audit.Note{Key: "version", Value: n.cfg.Version}, audit.Note{Key: "api", Value: n.apiAddr},
		audit.Note{Key: "tls", Value: cmp.Or(n.cfg.TLS.Mode, "off")}, audit.Note{Key: "auth", Value: n.cfg.Auth.mode()})
	if !n.stores.Identity().Reseeded {
		return
	}
	n.note(audit.EventReseeded, "", 0)
	if err := n.stores.UpdateIdentity(func(id *disk.Identity) { id.Reseeded = false }); err != nil {
		n.log.Warn("that the directory was re-seeded is recorded again at the next start", "err", err)
	}
}

// noteStop records that the node ends, and why if it does so by itself.
func (n *Node) noteStop() {
	r := audit.Record{Event: audit.EventStop, Who: n.itself(), Outcome: audit.OutcomeOK}
	if err := n.Err(); err != nil {
		r.Outcome, r.Error = "failed", err.Error()
	}
	n.audit.Put(r)
}

// noteMember records a change of Raft's configuration that this node has made.
func (n *Node) noteMember(what, id string, index uint64, err error) {
	r := audit.Record{Event: audit.EventMember, Who: n.itself(), Name: id, Index: index, Outcome: audit.OutcomeOK, Notes: []audit.Note{{Key: "change", Value: what}}}
	if err != nil {
		r.Outcome, r.Error = "unknown_outcome", err.Error()
	}
	n.audit.Put(r)
}

// AuditSettings records in [Config.Audit] that the program has changed settings while the
// node runs. It waits for nothing.
func (n *Node) AuditSettings(changed []string) {
	n.note(audit.EventSettings, "", 0, audit.Note{Key: "changed", Value: strings.Join(changed, ", ")})
}

// own is a node as the clients of its own program call it: what they do with force is
// recorded as well.
type own struct {
	node wire
	audit.Operator
}

// program is who does what the program does that the node runs in.
var program = audit.Who{Identity: "embedded"}

func (n *Node) ownClients() embedded.Node {
	if n.audit == nil {
		return wire{n}
	}
	return own{wire{n}, n.audit.Operator(wire{n}, program)}
}

// Start is part of embedded.Node.
func (o own) Start(call *mux.Call) {
	o.node.audit.Start(program, call, o.node.Start)
}

// Watch is part of embedded.Node.
func (o own) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	return o.node.Watch(session, f)
}

// Done is part of embedded.Node.
func (o own) Done() <-chan struct{} { return o.node.Done() }
