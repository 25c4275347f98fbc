package testall

import "time"

// Slice takes n of a list, other ones each day: every day goes on where the day before
// ended. It takes all if n is 0. Day is [Today], or another one to see what it takes.
func Slice[T any](list []T, n, day int) []T {
	if n == 0 || n >= len(list) {
		return list
	}
	some := make([]T, n)
	for i := range some {
		some[i] = list[(day*n+i)%len(list)]
	}
	return some
}

// Today numbers the days, in UTC.
func Today() int { return int(time.Now().Unix() / (24 * 60 * 60)) }
