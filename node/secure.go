package node

import (
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/secure"
)

// checkTLS reports every fault of the settings of TLS, and returns the mode. It reads no file.
func (c *Config) checkTLS(bad func(format string, args ...any)) secure.Mode {
	mode, err := secure.ParseMode(c.TLS.Mode)
	if err != nil {
		bad("tls mode: %w", err)
		return mode
	}
	files := []struct {
		name, value string
		needed      bool
	}{
		{"tls ca file", c.TLS.CAFile, true}, {"tls cert file", c.TLS.CertFile, true}, {"tls key file", c.TLS.KeyFile, true},
		{"tls client ca file", c.TLS.ClientCAFile, false},
	}
	for _, f := range files {
		switch {
		case mode.On() && c.TLS.Config != nil && f.value != "":
			bad("%s: is %q, must be empty because there is a tls config", f.name, f.value)
		case mode.On() && f.needed && f.value == "" && c.TLS.Config == nil:
			bad("%s: is missing, must be set with tls.mode %s: `locknode tls` makes CAs and certificates", f.name, mode)
		case !mode.On() && f.value != "":
			bad("%s: is %q, must be empty as long as tls.mode is off: set tls.mode to permissive or required to use TLS", f.name, f.value)
		}
	}
	if !mode.On() {
		if c.TLS.Config != nil {
			bad("tls config: is set, must be nil as long as the tls mode is off")
		}
		return mode
	}
	if mode == secure.Required && c.Insecure {
		bad("insecure: is true, must be false with tls.mode required, which takes no plain text; tls.mode permissive takes it")
	}
	if err := certs.CheckCluster(c.ClusterName); err != nil {
		bad("%w", err)
	}
	if c.seams.Network != nil {
		bad("tls mode: is %s, must be off in a simulation", mode)
	}
	return mode
}

// security is what a node needs for TLS. The zero value is that of a node without.
type security struct {
	mode      secure.Mode
	source    *certs.Source // nil without TLS
	api, http *secure.Port  // nil without TLS
	raft      *secure.Port
	dialer    *secure.Dialer
	plain     map[string]*atomic.Int64 // open connections in plain text, by listener; nil without TLS
}

// clientsNeedCertificates reports whether every client has to have a certificate.
func (t *TLS) clientsNeedCertificates() bool {
	return t.ClientCAFile != "" || t.Config != nil && t.Config.ClientCAs != nil
}

// plainListeners are the values of the label listener of connections in plain text: the ports,
// and what this node has dialled.
var plainListeners = []string{"grpc", "http", "raft", "dialled"}

// openTLS reads the certificates. A node without an ID takes that of its certificate.
func (n *Node) openTLS() error {
	mode, err := secure.ParseMode(n.cfg.TLS.Mode)
	if err != nil || !mode.On() {
		return err
	}
	t := n.cfg.TLS
	options := certs.Options{Node: true, Cluster: n.cfg.ClusterName, ID: n.cfg.ID, Hosts: n.cfg.dialledHosts(), Log: n.log}
	var source *certs.Source
	if t.Config != nil {
		source, err = certs.OpenConfig(t.Config, options)
	} else {
		source, err = certs.Open(certs.Files{CA: t.CAFile, ClientCA: t.ClientCAFile, Cert: t.CertFile, Key: t.KeyFile}, options)
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	n.security = security{mode: mode, source: source, plain: map[string]*atomic.Int64{}}
	for _, name := range plainListeners {
		n.security.plain[name] = &atomic.Int64{}
	}
	if self := source.State().Self; n.cfg.ID == "" && self != nil {
		n.cfg.ID = self.Name
	}
	api, http := source.ServeClients(t.clientsNeedCertificates()), source.ServeClients(false)
	api.NextProtos, http.NextProtos = []string{"h2"}, []string{"http/1.1"}
	const say = "this port takes only TLS (tls.mode of the node is required)"
	n.security.api = n.securePort("grpc", secure.PortOptions{Config: api, Answer: func(first []byte) []byte {
		if secure.IsHTTP1(first) {
			return secure.NotHTTP(say + ", and speaks gRPC; HTTP and JSON are on the node's HTTP port\n")
		}
		return secure.TLSAlert
	}})
	n.security.http = n.securePort("http", secure.PortOptions{Config: http, Answer: func([]byte) []byte {
		return secure.NotHTTP(say + ": use https:// and the CA of the cluster, for example curl --cacert ca.pem https://…\n")
	}})
	n.security.raft = n.securePort("raft", secure.PortOptions{Config: source.ServePeers(nil), Answer: network.RefusePlain})
	n.security.dialer = &secure.Dialer{Mode: mode, Config: source.DialPeer, OnPlain: func(member, addr string, delta int) {
		n.security.plain["dialled"].Add(int64(delta))
		if delta > 0 {
			n.log.Warn("another node is called in plain text: it does not speak TLS yet", "peer", member, "at", addr)
		}
	}}
	return nil
}

// ownCertificate checks that the certificate is that of this node, whose ID is known by now.
func (n *Node) ownCertificate() error {
	if n.security.source == nil {
		return nil
	}
	if self := n.security.source.State().Self; self != nil && self.Name != n.id {
		return fmt.Errorf("tls cert file: %s is for node %q, must be for %q, the ID in the data directory", n.cfg.TLS.CertFile, self.Name, n.id)
	}
	return nil
}

// securePort fills in what all ports have in common.
func (n *Node) securePort(listener string, o secure.PortOptions) *secure.Port {
	o.Mode = n.security.mode
	count := n.security.plain[listener]
	o.OnPlain = func(from net.Addr, delta int) {
		count.Add(int64(delta))
		if delta > 0 {
			n.log.Warn("a connection in plain text: tls.mode is permissive", "listener", listener, "from", hostOf(from.String()))
		}
	}
	if listener != "raft" { // that one logs its refusals itself
		o.OnRefused = func(from net.Addr, err error) {
			n.log.Warn("refused a connection: no TLS came about", "listener", listener, "from", hostOf(from.String()), "err", err)
		}
	}
	return secure.NewPort(o)
}

// dialledHosts are the hosts at which clients reach this node.
func (c *Config) dialledHosts() []string {
	hosts := []string{c.AdvertiseHost}
	if c.AdvertiseHost == "" {
		hosts = []string{hostOf(c.APIAddr), hostOf(c.HTTPAddr)}
	}
	hosts = append(hosts, c.HTTPHosts...)
	slices.Sort(hosts)
	return slices.DeleteFunc(slices.Compact(hosts), func(host string) bool {
		ip := net.ParseIP(host)
		return host == "" || host == "off" || ip != nil && ip.IsUnspecified()
	})
}

// memberOnly returns why a node that has proved its ID may not make the calls of members. A
// node that has no configuration yet cannot tell, and lets every node of the cluster.
func (n *Node) memberOnly(id string) error {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	servers := membership.Servers(r)
	if len(servers) == 0 {
		return nil
	}
	if _, ok := membership.Find(servers, id); ok {
		return nil
	}
	return fmt.Errorf("node %q has a certificate of this cluster and is no member: was it removed?", id)
}

// ReloadCertificates reads the files of [Config.TLS] again and uses them in all handshakes from
// now on; connections that are open stay open. The node does the same by itself within a
// minute after a file has changed. If anything is wrong with the files, the error names each
// fault, and what was in use stays in use. It waits for nothing but the files, and does
// nothing with [TLS.Mode] off.
func (n *Node) ReloadCertificates() error {
	if n.security.source == nil {
		return nil
	}
	if err := n.security.source.Reload(); err != nil {
		return fmt.Errorf("reload certificates: %w", err)
	}
	return nil
}

// logTLS logs at the start what a node that does not require TLS lets through.
func (n *Node) logTLS() {
	switch n.security.mode {
	case secure.Required:
		n.log.Info("TLS is required", "clients_need_certificates", n.cfg.TLS.clientsNeedCertificates())
	case secure.Permissive:
		n.log.Warn("tls.mode is permissive: plain text is taken as well, and nothing is protected",
			"next", "set it to required once no node and no client speaks plain text: locknode_plaintext_connections is 0, and locknode members shows no node with off")
	}
}

// tlsMetrics are the metrics of TLS. Without TLS there are none.
type tlsMetrics struct{ n *Node }

var (
	plainDesc = prometheus.NewDesc("locknode_plaintext_connections",
		"Open connections in plain text of a node that uses TLS, by listener; dialled: to other nodes.", []string{"listener"}, nil)
	daysDesc = prometheus.NewDesc("locknode_tls_certificate_days_left",
		"Days until a certificate ends, rounded down, by file; of CAs the first that ends.", []string{"file"}, nil)
	staleDesc = prometheus.NewDesc("locknode_tls_files_refused",
		"1 while the files of TLS are not in use as they are, because something is wrong with them.", nil, nil)
)

// Describe is part of prometheus.Collector.
func (m *tlsMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{plainDesc, daysDesc, staleDesc} {
		to <- d
	}
}

// Collect is part of prometheus.Collector.
func (m *tlsMetrics) Collect(to chan<- prometheus.Metric) {
	s := &m.n.security
	if s.source == nil {
		return
	}
	for _, name := range plainListeners {
		to <- prometheus.MustNewConstMetric(plainDesc, prometheus.GaugeValue, float64(s.plain[name].Load()), name)
	}
	state, now := s.source.State(), time.Now()
	if state.Leaf != nil {
		to <- prometheus.MustNewConstMetric(daysDesc, prometheus.GaugeValue, float64(state.Leaf.DaysLeft(now)), "cert")
	}
	for _, cas := range []struct {
		file string
		all  []certs.Validity
	}{{"ca", state.CAs}, {"client_ca", state.ClientCAs}} {
		if len(cas.all) == 0 {
			continue
		}
		first := slices.MinFunc(cas.all, func(a, b certs.Validity) int { return a.NotAfter.Compare(b.NotAfter) })
		to <- prometheus.MustNewConstMetric(daysDesc, prometheus.GaugeValue, float64(first.DaysLeft(now)), cas.file)
	}
	to <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, boolGauge(state.Err != nil))
}
