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
	// maxEndpoints bounds what Dial is given.
	maxEndpoints = 32
	// maxMembers bounds the members that are remembered, and maxMemberAddresses the
	// addresses of one: the one that was named last and the one before, because a node
	// may have been named by another that had not heard of its move yet.
	maxMembers         = 32
	maxMemberAddresses = 2
	// maxAddresses bounds what a search asks.
	maxAddresses = 4 * maxEndpoints
	// maxAddress and maxID bound the length of what is learned: a name has at most 253
	// bytes, and IDs of nodes and clusters have fewer.
	maxAddress = 262
	maxID      = 256
)

func checkEndpoints(endpoints []string) error {
	w := what{verb: "dial"}
	if len(endpoints) == 0 || len(endpoints) > maxEndpoints {
		return invalid(w, "%d endpoints, must be 1 to %d", len(endpoints), maxEndpoints)
	}
	var errs []error
	for _, e := range endpoints {
		host, port, err := net.SplitHostPort(e)
		if err != nil || host == "" || port == "" {
			errs = append(errs, invalid(w, "endpoint %q is not host:port", e))
		}
	}
	return errors.Join(errs...)
}

// book is where the members of one cluster are reached, by what nodes have said. It is
// a hint: whoever answers there says itself which cluster it belongs to, and whether it
// leads.
type book struct {
	cluster string
	index   uint64              // of the directory that counts
	members map[string][]string // node ID → host:port, the one named last first
}

// learn takes in a directory and reports whether that changed an address. What the node
// says that is used counts. What another one says counts if it is as late, so that a
// node that was removed long ago, and still names its old fellows, changes nothing.
// Members that are not named are forgotten, so that a client that lives long does not
// look for all that ever were; one whose address is not known to the node keeps the one
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

// addresses are those of all members.
func (b *book) addresses() []string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(b.members)) {
		all = append(all, b.members[id]...)
	}
	return all
}

// canBeDialled reports whether a learned address is worth a try: a node that listens
// on all interfaces may call itself 0.0.0.0, which would be this machine.
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

// learn takes in what a node has said about where the members are; used: the node is
// the one that takes the operations.
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

// belongsLocked ties the client to the cluster, if it is not tied yet, and reports
// whether it is this one. Another cluster has another lock table, whose tokens begin
// anew: a client never changes over.
func (r *remote) belongsLocked(cluster string) bool {
	if cluster == "" {
		return true // the node does not know yet
	}
	if r.cluster == "" {
		if r.cluster = cluster; r.book.cluster != cluster {
			r.book = book{}
			r.placesLocked()
		}
	}
	return r.cluster == cluster
}

// placesLocked makes places what the endpoints and the book say, and keeps what is
// known of those that stay.
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

// addressesLocked are all addresses that are known: of the endpoints first.
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

// changedLocked wakes the searches: there are other addresses than before.
func (r *remote) changedLocked() {
	close(r.news)
	r.news = make(chan struct{})
}

// changes returns a channel that is closed when there are other addresses.
func (r *remote) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

// newPlace returns what is known of host:port before it is looked up.
func newPlace(text string) *place {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return &place{text: text, literal: true} // nobody can be asked there
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
