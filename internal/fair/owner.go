package fair

// Owner identifies who an operation belongs to. The zero value is the node itself. Owners
// whose numbers are equal by chance share their turns, and nothing else.
type Owner struct {
	Address    uint64 // see [AddressOf]
	Connection uint64 // from there
}

// AddressOf returns the Address for a name, such as a network address without its port; 0
// for the empty name.
func AddressOf(name string) uint64 {
	if name == "" {
		return 0
	}
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return h
}
