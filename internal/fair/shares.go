package fair

// Shares counts what owners have of something that is bounded. Its zero value counts
// nothing yet. It must not be copied.
type Shares struct{ tree tree[struct{}] }

// Place is one unit that an owner has taken.
type Place = *node[struct{}]

// Enter counts one more for an owner, if its share of room allows it.
func (s *Shares) Enter(o Owner, room int) (p Place, ok bool) {
	if !s.tree.fits(o, 0, Room{Items: room}) {
		return nil, false
	}
	p = s.tree.leaf(o)
	s.tree.count(p, 1, 0)
	return p, true
}

// Leave returns a place that Enter has given.
func (s *Shares) Leave(p Place) { s.tree.count(p, -1, 0) }

// Len is how many places are taken.
func (s *Shares) Len() int { return s.tree.root.used.Items }
