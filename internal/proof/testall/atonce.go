package testall

import (
	"flag"
	"fmt"
	"strconv"
)

// AtOnce has as many tests that call t.Parallel run at once, unless -parallel says how
// many. It is for packages whose tests wait for processes, elections and deadlines: one
// test a processor, which is what testing does by itself, leaves the processors idle.
// TestMain calls it before it runs the tests.
//
// While something is fuzzed, which keeps the processors busy, -parallel is the number of its
// processes, and stays as it is.
func AtOnce(tests int) {
	const name = "test.parallel"
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name || f.Name == "test.fuzz" })
	if given {
		return
	}
	if err := flag.Set(name, strconv.Itoa(tests)); err != nil {
		panic(fmt.Sprintf("set -%s to %d: %v", name, tests, err))
	}
}
