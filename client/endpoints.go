package client

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

const (
	// maxEndpoints bounds the endpoints that Dial accepts.
	maxEndpoints = 32
	// maxMembers bounds the members that are remembered, and maxMemberAddresses the
	// addresses of one: the latest and the one before, because the node that named the
	// latest may not have heard yet that the member has moved.
	maxMembers         = 32
	maxMemberAddresses = 2
	// maxAddresses bounds the addresses that a search asks.
	maxAddresses = 4 * maxEndpoints
	// maxAddress and maxID bound the length of what is learned: a name has at most 253
	// bytes, and IDs of nodes and clusters have fewer.
	maxAddress = 262
	maxID      = 256
)

func checkEndpoints(endpoints []string) error {
	w := what{verb: "dial"}
	if len(endpoints) == 0 || len(endpoints) > maxEndpoints {
		return invalid(w, "number of endpoints: is %d, must be 1 to %d", len(endpoints), maxEndpoints)
	}
	var errs []error
	for _, e := range endpoints {
		host, port, err := net.SplitHostPort(e)
		if err != nil || host == "" || port == "" {
			errs = append(errs, invalid(w, "endpoint: is %q, must be host:port", e))
		}
	}
	return errors.Join(errs...)
}

// book has the addresses of the members of one cluster, as nodes have reported them. It is
// a hint: the node that answers at an address says itself which cluster it belongs to, and
// whether it leads.
type book struct {
	cluster string
	index   uint64              // of the directory that counts
	members map[string][]string // node ID → host:port, the one named last first
}

// learn adopts a directory and reports whether that changed an address. The directory of
// the node in use is always adopted, that of another node only if it is as late: a
// node that was removed long ago still reports the members of that time.
// Members that are not in it are forgotten, so that a client that runs for long does not
// dial all that there ever were; a member whose address the node does not know keeps the one
// that it had.
func (b *book) learn(d *apiv1.Directory, used bool) (changed bool) {
	if d.GetClusterId() != b.cluster && b.cluster != "" && !used ||
		d.GetClusterId() == b.cluster && d.GetIndex() < b.index && !used || len(d.GetMembers()) == 0 {
		return false
	}
	before := b.members
	if d.GetClusterId() != b.cluster {
		before = nil
	}
	b.cluster, b.index, b.members = d.GetClusterId(), d.GetIndex(), make(map[string][]string)
	for _, p := range d.GetMembers() {
		if len(b.members) == maxMembers {
			break
		}
		if len(p.GetId()) > maxID {
			continue
		}
		addrs := before[p.GetId()]
		if a := p.GetApiAddress(); canBeDialled(a) {
			addrs = slices.Insert(slices.DeleteFunc(slices.Clone(addrs), func(x string) bool { return x == a }), 0, a)
		}
		if len(addrs) > 0 {
			b.members[p.GetId()] = addrs[:min(len(addrs), maxMemberAddresses)]
		}
	}
	return !maps.EqualFunc(before, b.members, slices.Equal)
}

// addresses returns the addresses of all members.
func (b *book) addresses() []string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(b.members)) {
		all = append(all, b.members[id]...)
	}
	return all
}

// canBeDialled reports whether a learned address may be dialled: a node that listens
// on all interfaces may report 0.0.0.0, which would be this machine.
func canBeDialled(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || len(addr) > maxAddress {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || isOneHost(ip)
}

func isOneHost(ip netip.Addr) bool { return !ip.IsUnspecified() && !ip.IsMulticast() }

// learn adopts the directory of a node; used: the node is the one in use.
func (r *remote) learn(d *apiv1.Directory, used bool) {
	if d.GetClusterId() == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cluster != "" && d.GetClusterId() != r.cluster {
		return
	}
	if r.book.learn(d, used) {
		r.placesLocked()
		r.changedLocked()
		r.log.Debug("members learned", "cluster", d.GetClusterId(), "index", d.GetIndex(), "members", len(r.book.members))
	}
}

// belongsLocked ties the client to the cluster if it has none yet, and reports
// whether the cluster is its own. Another cluster has another lock table, whose tokens begin
// again from the start: a client never changes its cluster.
func (r *remote) belongsLocked(cluster string) bool {
	if cluster == "" {
		return true // the node does not know its cluster yet
	}
	if r.cluster == "" {
		if r.cluster = cluster; r.book.cluster != cluster {
			r.book = book{}
			r.placesLocked()
		}
	}
	return r.cluster == cluster
}

// placesLocked makes places those of the endpoints and of the book, and keeps what is
// known of those that were there.
func (r *remote) placesLocked() {
	before := r.places
	r.places = make(map[string]*place)
	for _, text := range slices.Concat(r.endpoints, r.book.addresses()) {
		switch {
		case r.places[text] != nil:
		case before[text] != nil:
			r.places[text] = before[text]
		default:
			r.places[text] = newPlace(text)
		}
	}
}

// addressesLocked returns all known addresses: those of the endpoints first.
func (r *remote) addressesLocked() []string {
	var all []string
	for _, text := range slices.Concat(r.endpoints, r.book.addresses()) {
		for _, a := range r.places[text].addrs {
			if len(all) < maxAddresses && !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

func (r *remote) addresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addressesLocked()
}

// expand returns the addresses behind host:port: those of a name only if it belongs to
// an endpoint or a member.
func (r *remote) expand(text string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.places[text]; p != nil {
		return slices.Clone(p.addrs)
	}
	if !canBeDialled(text) {
		return nil
	}
	return newPlace(text).addrs
}

// authorityLocked is the name by which an address was found, which is what a
// certificate is for; empty if it was found without a name.
func (r *remote) authorityLocked(addr string) string {
	for _, text := range slices.Concat(r.endpoints, r.book.addresses()) {
		if p := r.places[text]; !p.literal && slices.Contains(p.addrs, addr) {
			return text
		}
	}
	return ""
}

// changedLocked wakes the searches, because the addresses may have changed.
func (r *remote) changedLocked() {
	close(r.addressNews)
	r.addressNews = make(chan struct{})
}

// changes returns a channel that is closed when the addresses may have changed.
func (r *remote) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addressNews
}

// newPlace returns what is known of host:port before it is looked up.
func newPlace(text string) *place {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return &place{text: text, literal: true} // without addresses
	}
	p := &place{text: text, host: host, port: port}
	if ip, err := netip.ParseAddr(host); err == nil {
		p.literal, p.addrs = true, []string{net.JoinHostPort(ip.String(), port)}
	}
	return p
}

// place is one host:port, of an endpoint or a member, with the addresses behind it.
type place struct {
	text       string
	host, port string
	literal    bool     // host is an IP address: there is nothing to look up
	addrs      []string // ip:port
	asking     bool     // a lookup is under way
	next       time.Time
	err        error // of the last lookup
}
