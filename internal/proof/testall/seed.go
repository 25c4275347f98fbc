package testall

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// SeedVariable is a number, above 0, that all random cases of a run come from.
const SeedVariable = "TEST_SEED"

// Seed is the number in TEST_SEED, or one that nobody has seen if it is not set.
func Seed() uint64 {
	if seed, ok := given(); ok {
		return seed
	}
	return uint64(time.Now().UnixNano())%1_000_000_000 + 1
}

// Turn numbers the runs for [Slice]: by TEST_SEED, or by days, in UTC, if it is not set.
func Turn() uint64 {
	if seed, ok := given(); ok {
		return seed
	}
	return uint64(time.Now().Unix() / (24 * 60 * 60))
}

func given() (uint64, bool) {
	text := os.Getenv(SeedVariable)
	if text == "" {
		return 0, false
	}
	seed, err := strconv.ParseUint(text, 10, 63)
	if err != nil || seed == 0 {
		fmt.Fprintf(os.Stderr, "%s: is %q, must be a number above 0 and below 2^63\n", SeedVariable, text)
		os.Exit(2) // whatever asks, it must not run with other cases than it was asked for
	}
	return seed, true
}

// Slice takes n of a list, other ones each turn: every turn goes on where the one
// before ended. It takes all if n is 0. Turn is [Turn], or another one to see what it takes.
func Slice[T any](list []T, n int, turn uint64) []T {
	if n == 0 || n >= len(list) {
		return list
	}
	some := make([]T, n)
	first := int(turn%uint64(len(list))) * n
	for i := range some {
		some[i] = list[(first+i)%len(list)]
	}
	return some
}
