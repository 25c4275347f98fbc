package rights

import (
	"crypto/subtle"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/locknode/locknode/fsm"
)

// maxOthers bounds the subjects that are kept besides those of access tokens. Beyond them a
// subject is compiled each time.
const maxOthers = 4096

// Book is the access tokens and policies as of one log index. Its methods are safe for
// concurrent use.
type Book struct {
	index    uint64
	count    int                      // of policies
	holders  map[[32]byte]*Holder     // hash of the secret → who shows it
	subjects map[Identity]*Subject    // of access tokens, and the anonymous one
	policies map[string][]*fsm.Policy // what is in Policy.For → those policies, sorted by name

	others sync.Map // Identity → *Subject: of certificates and nodes
	kept   atomic.Int64
}

// Holder is an access token and who shows its secret.
type Holder struct {
	Token   fsm.AccessToken
	Subject *Subject
}

// NewBook compiles access tokens and policies. index is the log index of their last change. The
// book keeps both, which must not be changed any more.
func NewBook(index uint64, tokens []fsm.AccessToken, policies []fsm.Policy) *Book {
	b := &Book{
		index: index, count: len(policies), holders: make(map[[32]byte]*Holder, len(tokens)),
		subjects: make(map[Identity]*Subject, len(tokens)+1), policies: make(map[string][]*fsm.Policy, len(policies)),
	}
	slices.SortFunc(policies, func(x, y fsm.Policy) int { return strings.Compare(x.Name, y.Name) })
	for i := range policies {
		for _, who := range policies[i].For {
			if all := b.policies[who]; len(all) == 0 || all[len(all)-1] != &policies[i] {
				b.policies[who] = append(all, &policies[i])
			}
		}
	}
	labels := make(map[Identity]map[string]bool)
	for i := range tokens {
		id := Token(tokens[i].Name)
		s := b.subjects[id]
		if s == nil {
			s = &Subject{Identity: id}
			b.subjects[id] = s
		}
		b.holders[tokens[i].Hash] = &Holder{Token: tokens[i], Subject: s}
		for _, l := range tokens[i].Labels {
			if labels[id] == nil {
				labels[id] = map[string]bool{}
			}
			labels[id]["label:"+l.Key+"="+l.Value] = true
		}
	}
	b.subjects[Anonymous] = &Subject{Identity: Anonymous}
	for id, s := range b.subjects {
		s.policies = b.of(id, labels[id])
	}
	return b
}

// of returns the policies for an identity with labels, sorted by name.
func (b *Book) of(id Identity, labels map[string]bool) []*fsm.Policy {
	all := slices.Concat(b.policies["*"], b.policies[string(id)])
	for label := range labels {
		all = append(all, b.policies[label]...)
	}
	slices.SortFunc(all, func(x, y *fsm.Policy) int { return strings.Compare(x.Name, y.Name) })
	return slices.Compact(all)
}

// Index returns the log index of the last change of access tokens or policies that the book
// has. A nil Book has index 0.
func (b *Book) Index() uint64 {
	if b == nil {
		return 0
	}
	return b.index
}

// Tokens returns how many access tokens there are.
func (b *Book) Tokens() int { return len(b.holders) }

// Policies returns how many policies there are.
func (b *Book) Policies() int { return b.count }

// Holder returns who shows a secret with this hash; nil if no valid access token has it.
func (b *Book) Holder(hash [32]byte) *Holder {
	h := b.holders[hash]
	if h == nil || subtle.ConstantTimeCompare(h.Token.Hash[:], hash[:]) != 1 {
		return nil
	}
	return h
}

// Subject returns what the policies say about an identity. For an identity of an access token
// the labels of all access tokens of its name count.
func (b *Book) Subject(id Identity) *Subject {
	if s := b.subjects[id]; s != nil {
		return s
	}
	if s, ok := b.others.Load(id); ok {
		return s.(*Subject)
	}
	s := &Subject{Identity: id, policies: b.of(id, nil)}
	if b.kept.Load() < maxOthers {
		if _, there := b.others.LoadOrStore(id, s); !there {
			b.kept.Add(1)
		}
	}
	return s
}

// Subject is what the policies of a book say about one identity. Its methods are safe for
// concurrent use.
type Subject struct {
	Identity Identity
	policies []*fsm.Policy
	compiled atomic.Pointer[regions]
}

// Policies returns the names of the policies for the identity.
func (s *Subject) Policies() []string {
	names := make([]string, len(s.policies))
	for i, p := range s.policies {
		names[i] = p.Name
	}
	return names
}

// HasPolicies reports whether any policy is for the identity.
func (s *Subject) HasPolicies() bool { return len(s.policies) > 0 }

// Quota returns the smallest of each quota of the policies for the identity, 0 where none has
// one.
func (s *Subject) Quota() fsm.Quota {
	var q fsm.Quota
	for _, p := range s.policies {
		lower(&q.Sessions, p.Quota.Sessions)
		lower(&q.Grants, p.Quota.Grants)
		lower(&q.Waiters, p.Quota.Waiters)
		lower(&q.Bytes, p.Quota.Bytes)
		lower(&q.OpsPerSecond, p.Quota.OpsPerSecond)
		lower(&q.Connections, p.Quota.Connections)
		lower(&q.Streams, p.Quota.Streams)
		lower(&q.UnsentBytes, p.Quota.UnsentBytes)
	}
	return q
}

func lower[N int | int64](to *N, by N) {
	if by != 0 && (*to == 0 || by < *to) {
		*to = by
	}
}
