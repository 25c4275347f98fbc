package rights

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/locknode/locknode/fsm"
)

// The rules of a subject cut the names, in their order, into regions in which the same rule
// decides about each right: a prefix is a range of names, and a whole name a range of one. So a
// decision is a binary search, however many rules there are, and a list can skip what may not be
// read without looking at it. Rejected: to look up each prefix of a name. A name has up to
// hundreds of bytes, and each takes a look-up.

// rightCount is how many rights there are.
const rightCount = 4

// none is that no rule decides.
const none = -1

// best is the rule that decides about each right, by its number in regions.rules; none: no rule
// does.
type best [rightCount]int32

var nothing = best{none, none, none, none}

// regions are the names from from[i] up to from[i+1], in which best[i] decides. from[0] is "".
type regions struct {
	from       []string
	best       []best
	rules      []rule
	everywhere [rightCount]bool // no name is without the right
	readable   []Span
}

// rule is one rule of a policy, for one identity.
type rule struct {
	deny   bool
	rights fsm.Right
	name   string
	policy *fsm.Policy
	number int // in the policy
}

// Span is the names from From up to To, without To itself; if To is empty, all from From on.
type Span = struct{ From, To string }

// Decision says whether an identity has a right on a name, and why.
type Decision struct {
	Allowed bool
	Policy  string // whose rule decides; empty: no rule matches
	Rule    int    // its number in the policy, from 1; 0: no rule matches
	By      fsm.Rule
}

// Decide returns whether the subject has a right on a name. Of a set of rights it must have
// each; the decision is then that about the first one that it lacks.
func (s *Subject) Decide(right fsm.Right, name string) Decision {
	r := s.regions()
	b := &r.best[r.find(name)]
	d := Decision{}
	for ; right != 0; right &= right - 1 {
		i := bits.TrailingZeros8(uint8(right))
		if i >= rightCount || b[i] == none {
			return Decision{}
		}
		by := &r.rules[b[i]]
		d = Decision{Allowed: !by.deny, Policy: by.policy.Name, Rule: by.number + 1, By: by.policy.Rules[by.number]}
		if !d.Allowed {
			return d
		}
	}
	return d
}

// Everywhere reports whether there is no name on which the subject lacks a right.
func (s *Subject) Everywhere(right fsm.Right) bool {
	return s.regions().everywhere[bits.TrailingZeros8(uint8(right))]
}

// Readable returns the names that the subject may read, in their order. The spans do not touch.
// It is not nil, also if there are none.
func (s *Subject) Readable() []Span { return s.regions().readable }

// Why says in one line who decides; identity, right and name are those that were asked about.
func (d Decision) Why(identity Identity, right fsm.Right, name string) string {
	about := fmt.Sprintf("%s for %s on %q", RightName(right), identity, name)
	if right == fsm.RightAdmin {
		about = fmt.Sprintf("%s for %s", RightName(right), identity)
	}
	if d.Rule == 0 {
		return "denied: no rule of a policy for " + string(identity) + " is about " + RightName(right) + on(right, name)
	}
	word, kind := "allowed", "prefix"
	if d.By.Deny {
		word = "denied"
	}
	if d.By.Exact {
		kind = "name"
	}
	return fmt.Sprintf("%s: %s is decided by rule %d of policy %q, for %s %q", word, about, d.Rule, d.Policy, kind, d.By.Name)
}

func on(right fsm.Right, name string) string {
	if right == fsm.RightAdmin {
		return ""
	}
	return fmt.Sprintf(" on %q", name)
}

// rightNames are in the order of the bits.
var rightNames = [rightCount]string{"read", "lock", "force", "admin"}

// RightName returns the name of one right.
func RightName(right fsm.Right) string {
	if i := bits.TrailingZeros8(uint8(right)); i < rightCount && right&(right-1) == 0 {
		return rightNames[i]
	}
	return fmt.Sprintf("right_%d", uint8(right))
}

// RightOf returns the right of a name; ok is false if there is none.
func RightOf(name string) (right fsm.Right, ok bool) {
	i := slices.Index(rightNames[:], name)
	if i < 0 {
		return 0, false
	}
	return 1 << i, true
}

// find returns the region of a name.
func (r *regions) find(name string) int {
	low, high := 0, len(r.from)
	for high-low > 1 {
		if mid := (low + high) / 2; r.from[mid] <= name {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// regions compiles the rules when they are asked for first: most identities never call.
func (s *Subject) regions() *regions {
	if r := s.compiled.Load(); r != nil {
		return r
	}
	r := compile(s.Identity, s.policies)
	s.compiled.Store(r)
	return r
}

// placeholder stands for the name of the identity.
const placeholder = "${identity}"

// compile makes the regions out of all rules for an identity.
func compile(id Identity, policies []*fsm.Policy) *regions {
	r := &regions{}
	self, named := id.Name()
	var prefixes []int32
	exact := map[string]best{}
	points := []string{""}
	for _, p := range policies {
		for i, of := range p.Rules {
			if strings.Contains(of.Name, placeholder) {
				if !named {
					continue
				}
				of.Name = strings.ReplaceAll(of.Name, placeholder, self)
			}
			number := int32(len(r.rules)) //nolint:gosec // the table bounds policies and rules
			r.rules = append(r.rules, rule{of.Deny, of.Rights, of.Name, p, i})
			points = append(points, of.Name)
			if of.Exact {
				b, there := exact[of.Name]
				if !there {
					b = nothing
				}
				exact[of.Name] = r.with(b, nothing, number)
				points = append(points, of.Name+"\x00")
				continue
			}
			prefixes = append(prefixes, number)
			if end, ok := after(of.Name); ok {
				points = append(points, end)
			}
		}
	}
	slices.SortStableFunc(prefixes, func(x, y int32) int { return strings.Compare(r.rules[x].name, r.rules[y].name) })
	slices.Sort(points)
	r.sweep(slices.Compact(points), prefixes, exact)
	r.summarize()
	return r
}

// with returns b with one more rule for the same names; wider is what decides for a name if no
// rule for just these names does.
func (r *regions) with(b, wider best, number int32) best {
	of := &r.rules[number]
	for i := range b {
		if of.rights&(1<<i) != 0 && (b[i] == wider[i] || of.deny && !r.rules[b[i]].deny) {
			b[i] = number
		}
	}
	return b
}

// sweep goes through the points, at which a range of names begins or ends, in order. The
// prefixes of a point are nested: they are a stack.
func (r *regions) sweep(points []string, prefixes []int32, exact map[string]best) {
	type level struct {
		name string
		best best
	}
	stack := []level{}
	for _, point := range points {
		for len(stack) > 0 && !strings.HasPrefix(point, stack[len(stack)-1].name) {
			stack = stack[:len(stack)-1]
		}
		now := nothing
		if len(stack) > 0 {
			now = stack[len(stack)-1].best
		}
		wider, begun := now, false
		for len(prefixes) > 0 && r.rules[prefixes[0]].name == point {
			now, begun = r.with(now, wider, prefixes[0]), true
			prefixes = prefixes[1:]
		}
		if begun {
			stack = append(stack, level{point, now})
		}
		if own, ok := exact[point]; ok {
			for i, number := range own {
				if number != none {
					now[i] = number
				}
			}
		}
		if n := len(r.best); n == 0 || r.best[n-1] != now {
			r.from, r.best = append(r.from, point), append(r.best, now)
		}
	}
}

// summarize derives what is asked about all names.
func (r *regions) summarize() {
	for i := range rightCount {
		r.everywhere[i] = true
		for _, b := range r.best {
			r.everywhere[i] = r.everywhere[i] && r.allows(b[i])
		}
	}
	open := false
	r.readable = []Span{}
	for n, b := range r.best {
		allowed := r.allows(b[bits.TrailingZeros8(uint8(fsm.RightRead))])
		switch {
		case allowed && !open:
			r.readable = append(r.readable, Span{From: r.from[n]})
		case !allowed && open:
			r.readable[len(r.readable)-1].To = r.from[n]
		}
		open = allowed
	}
}

func (r *regions) allows(number int32) bool { return number != none && !r.rules[number].deny }

// after returns the first name after all that begin with a prefix; ok is false if there is none.
func after(prefix string) (end string, ok bool) {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1}), true
		}
	}
	return "", false
}
