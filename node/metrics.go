package node

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/server"
)

// metrics is what a node counts. The registry is the node's own: two nodes in
// one process do not mix. It also has the metrics of the process; a registry of the
// program gets those of the node only.
type metrics struct {
	registry      *prometheus.Registry
	own           together
	grants        prometheus.Counter
	ends          *prometheus.CounterVec
	waitsEnded    *prometheus.CounterVec
	waited        prometheus.Histogram
	held          prometheus.Histogram
	entries       prometheus.Counter
	commands      prometheus.Counter
	refused       prometheus.Counter
	leaderChanges prometheus.Counter
	operations    *prometheus.CounterVec
	took          *prometheus.HistogramVec
	connections   *prometheus.GaugeVec
	streams       prometheus.Gauge
	refusedConns  *prometheus.CounterVec
	cut           prometheus.Counter
	cancelled     prometheus.Counter
	denied        *prometheus.CounterVec
	comparisons   prometheus.Counter
	audited       prometheus.Counter
	unaudited     prometheus.Counter
	overQuota     *prometheus.CounterVec
}

// gauges are read from the node at each scrape.
type gauges struct {
	name, help string
	read       func(s fsm.Stats) float64
}

var tableGauges = []gauges{
	{"locknode_locks", "Locks that are held, waited for or delayed.", func(s fsm.Stats) float64 { return float64(s.Locks) }},
	{"locknode_grants", "Grants that are held.", func(s fsm.Stats) float64 { return float64(s.Grants) }},
	{"locknode_waiters", "Requests that wait in the queue.", func(s fsm.Stats) float64 { return float64(s.Waiters) }},
	{"locknode_sessions", "Open sessions.", func(s fsm.Stats) float64 { return float64(s.Sessions) }},
	{"locknode_last_token", "The last fencing token given.", func(s fsm.Stats) float64 { return float64(s.LastToken) }},
	{"locknode_cluster_time_seconds", "Cluster time of the last applied entry.", func(s fsm.Stats) float64 { return float64(s.Now) / 1e9 }},
}

func newMetrics(n *Node) *metrics {
	m := &metrics{
		registry:      prometheus.NewRegistry(),
		grants:        counter("locknode_grants_total", "Grants given, as applied by this node."),
		ends:          counterVec("locknode_grant_ends_total", "Grants that ended, by how: released, expired or revoked.", "how"),
		waitsEnded:    counterVec("locknode_waits_failed_total", "Waits that ended without a grant, by code.", "code"),
		waited:        histogram("locknode_grant_wait_seconds", "Cluster time between a request and its grant."),
		held:          histogram("locknode_grant_held_seconds", "Cluster time between a grant and its end."),
		entries:       counter("locknode_entries_applied_total", "Log entries applied."),
		commands:      counter("locknode_commands_applied_total", "Commands applied."),
		refused:       counter("locknode_entries_refused_total", "Log entries refused as a whole: stamped in another term, or malformed."),
		leaderChanges: counter("locknode_leaderships_total", "Times this node took leadership up."),
		operations:    counterVec("locknode_operations_total", "Operations answered to clients, by road, kind and code.", "road", "operation", "code"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "locknode_operation_seconds", Help: "Time until an operation was answered, including the wait in the queue.", Buckets: buckets,
		}, []string{"operation"}),
		connections:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "locknode_connections", Help: "Open client connections, by listener."}, []string{"listener"}),
		streams:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "locknode_streams", Help: "Open Session streams."}),
		refusedConns: counterVec("locknode_connections_refused_total", "Connections over a limit, by listener.", "listener"),
		cut:          counter("locknode_streams_cut_total", "Streams that were cut because the client did not read."),
		cancelled:    counter("locknode_acquires_abandoned_total", "Acquires cancelled because their caller went away."),
		denied:       counterVec("locknode_auth_refused_total", "What the caller had no right to, by code, and by whether it was refused (mode log refuses nothing).", "code", "enforced"),
		comparisons:  counter("locknode_state_comparisons_total", "Comparisons of this node's state with another node's."),
		audited:      counter("locknode_audit_records_total", "Records written to the audit."),
		overQuota:    counterVec("locknode_quota_refused_total", "What was refused because a quota of its caller is used up, by quota.", "quota"),
		unaudited:    counter("locknode_audit_lost_total", "Records that could not be written to the audit."),
	}
	m.add(m.grants, m.ends, m.waitsEnded, m.waited, m.held, m.entries, m.commands, m.refused,
		m.leaderChanges, m.operations, m.took, m.connections, m.streams, m.refusedConns, m.cut, m.cancelled, m.denied, m.comparisons, m.audited, m.unaudited, m.overQuota)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, g := range tableGauges {
		m.gauge(g.name, g.help, func() float64 { return g.read(n.state.Load().Stats) })
	}
	m.nodeGauges(n)
	return m
}

// nodeGauges are about this member rather than about the table.
func (m *metrics) nodeGauges(n *Node) {
	m.gauge("locknode_leader", "1 while this node serves as leader.", func() float64 { return boolGauge(n.epoch.Load() != nil) })
	m.gauge("locknode_ready", "1 while this node is ready.", func() float64 { return boolGauge(n.readiness() == nil) })
	m.gauge("locknode_waiting_acquires", "Acquires that wait on this node for their answer.", func() float64 { return float64(n.waits.len()) })
	m.gauge("locknode_applied_index", "Index of the last applied command.", func() float64 { return float64(n.appliedIndex()) })
	m.gauge("locknode_replay_bytes", "Bytes of log entries that a restart would apply again.", func() float64 { return float64(n.snapshots.replay()) })
	m.gauge("locknode_store_stalled", "1 while a write to disk is outstanding for too long.", func() float64 {
		return boolGauge(n.stores != nil && n.stores.Stalled())
	})
	m.gauge("locknode_state_diverged", "1 while this node's state is known to differ from another member's.", func() float64 {
		return boolGauge(n.divergence.found())
	})
	m.gauge("locknode_audit_failing", "1 while records cannot be written to the audit.", func() float64 { return boolGauge(n.audit.Failing() != nil) })
	m.add(&tlsMetrics{n: n})
	m.gauge("locknode_auth_enforced", "1 while this node refuses what the caller has no right to.", func() float64 {
		enforced, _ := n.rights.describe()
		return boolGauge(enforced)
	})
	m.gauge("locknode_access_tokens", "Access tokens that are valid, as this node knows them.", func() float64 { return float64(n.rights.book.Load().Tokens()) })
	m.gauge("locknode_policies", "Policies, as this node knows them.", func() float64 { return float64(n.rights.book.Load().Policies()) })
	m.gauge("locknode_raft_term", "Raft's current term.", func() float64 {
		if r := n.raft.Load(); r != nil {
			return float64(r.CurrentTerm())
		}
		return 0
	})
	m.gauge("locknode_read_age_seconds", "How old this node's table may be, at most.", func() float64 {
		age, _ := n.rounds.age()
		return age.Seconds()
	})
}

func (m *metrics) gauge(name, help string, read func() float64) {
	m.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

func (m *metrics) add(own ...prometheus.Collector) {
	m.registry.MustRegister(own...)
	m.own = append(m.own, own...)
}

// together are collectors that are registered, or refused, as one.
type together []prometheus.Collector

// Describe is part of prometheus.Collector.
func (all together) Describe(to chan<- *prometheus.Desc) {
	for _, c := range all {
		c.Describe(to)
	}
}

// Collect is part of prometheus.Collector.
func (all together) Collect(to chan<- prometheus.Metric) {
	for _, c := range all {
		c.Collect(to)
	}
}

// register adds the node's metrics to the registry of the program. It is the last step of
// opening the node: from then on they may be read at any time.
func (n *Node) register() error {
	if n.cfg.Metrics == nil {
		return nil
	}
	if err := n.cfg.Metrics.Register(n.metrics.own); err != nil {
		return fmt.Errorf("register metrics: %w; a second node in one process needs labels of its own: prometheus.WrapRegistererWith", err)
	}
	n.registered.Store(true)
	return nil
}

// unregister removes them.
func (n *Node) unregister() {
	if n.registered.CompareAndSwap(true, false) {
		n.cfg.Metrics.Unregister(n.metrics.own)
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// buckets reach from the commit of an idle cluster to a long wait, in seconds.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

func boolGauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// observe counts what an entry did.
func (m *metrics) observe(a *fsm.Applied) {
	m.entries.Inc()
	if a.Refused != fsm.OK {
		m.refused.Inc()
		return
	}
	m.commands.Add(float64(len(a.Results)))
	for i := range a.Events {
		switch e := &a.Events[i]; e.Kind {
		case fsm.EventGranted:
			m.grants.Inc()
			m.waited.Observe(float64(e.Waited) / 1e9)
		case fsm.EventReleased:
			m.endOf("released", e)
		case fsm.EventExpired:
			m.endOf("expired", e)
		case fsm.EventRevoked:
			m.endOf("revoked", e)
		case fsm.EventWaitEnded:
			m.waitsEnded.WithLabelValues(apiv1.Code(e.Code).String()).Inc()
		}
	}
}

func (m *metrics) endOf(how string, e *fsm.Event) {
	m.ends.WithLabelValues(how).Inc()
	m.held.Observe(float64(e.Held) / 1e9)
}

// What follows makes metrics a [server.Observer].

// Answered counts an operation that the server has answered.
func (m *metrics) Answered(road server.Road, kind string, code apiv1.Code, took time.Duration) {
	m.operations.WithLabelValues(string(road), kind, code.String()).Inc()
	m.took.WithLabelValues(kind).Observe(took.Seconds())
}

// Connections counts open connections.
func (m *metrics) Connections(listener string, delta int) {
	m.connections.WithLabelValues(listener).Add(float64(delta))
}

// Streams counts open Session streams.
func (m *metrics) Streams(delta int) { m.streams.Add(float64(delta)) }

// Refused counts connections over a limit.
func (m *metrics) Refused(listener string) { m.refusedConns.WithLabelValues(listener).Inc() }

// Cut counts streams that did not read.
func (m *metrics) Cut() { m.cut.Inc() }

// Denied counts what the caller had no right to.
func (m *metrics) Denied(code apiv1.Code, enforced bool) {
	m.denied.WithLabelValues(code.String(), strconv.FormatBool(enforced)).Inc()
}

// Cancelled counts acquires whose caller went away.
func (m *metrics) Cancelled() { m.cancelled.Inc() }

// OverQuota counts what was refused because a quota of its caller is used up.
func (m *metrics) OverQuota(quota string) { m.overQuota.WithLabelValues(quota).Inc() }
