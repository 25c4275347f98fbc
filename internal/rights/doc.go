// Package rights decides who may do what, from the access tokens and policies of the lock table.
// It is pure: it reads no clock, file or socket, and starts no goroutine.
//
// Objects:
//
//   - [Identity]: who calls.
//   - a secret: what a caller shows to prove that an access token is his. Only its hash is
//     kept anywhere.
//   - [Book]: the access tokens and policies as of one log index, compiled. A node makes a new
//     one when they have changed; a Book itself never changes. Who keeps something that he
//     took out of one compares the pointers to find out whether that still counts.
//   - [Subject]: what the policies of a Book say about one identity.
//
// Invariants:
//
//   - What no rule allows is denied.
//   - Of all rules that name a right and match a name, over all policies for the identity,
//     one decides: the one for exactly this name before one for a prefix, a longer prefix
//     before a shorter one, and of two for the same names the one that denies.
//   - [Subject.Decide] and [Book.Holder] allocate nothing and take no lock.
//
// Files:
//   - identity.go: who calls?
//   - secret.go: how does a secret look, and which access token is it?
//   - book.go: which access tokens and policies are there, and for whom?
//   - decide.go: which rule decides?
package rights
