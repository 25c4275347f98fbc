package main

const (
	theClient = "./client"
	commands  = "./cmd/locknode"
)

var rightsClientMutants = []mutant{
	{
		name:    "secret-in-plain-text-to-others",
		breaks:  "a client sends its access token in plain text to another machine",
		promise: "S10",
		changes: []change{{"client/token.go", "	case b.bare:\n", "	case false:\n"}},
		caught:  []catcher{named(theClient, "TestSecretIsNotSentInPlainTextToOthers")},
	},
	{
		name:    "replaced-access-token-is-not-asked-for",
		breaks:  "a client whose access token was replaced goes on with the old one, and loses what it holds",
		promise: "liveness",
		changes: []change{{"client/token.go", "	if time.Since(c.asked) >= leastAsked {\n", "	if time.Since(c.asked) < 0 {\n"}},
		caught:  []catcher{named(theClient, "TestReplacedTokenKeepsWhatIsHeld")},
	},
	{
		name:    "refused-caller-waits-for-ever",
		breaks:  "a client that all nodes refuse goes on searching for a leader instead of reporting it",
		promise: "liveness",
		changes: []change{{"client/search.go", "		case left <= 0, away != nil:\n", "		case left <= 0:\n"}},
		caught:  []catcher{named(theClient, "TestWrongTokenIsRefusedAtOnce")},
	},
	{
		name:    "refused-stream-is-opened-for-ever",
		breaks:  "a client whose streams are refused, while the status is open to everybody, opens them again and again",
		promise: "liveness",
		changes: []change{{"client/token.go", "	if err == nil || !turnedAway(err) || l.token != r.credential.refused() {\n", "	if true {\n"}},
		caught:  []catcher{named(theClient, "TestWrongTokenIsRefusedWhereTheStatusIsOpen")},
	},
	{
		name:    "loss-by-refusal-has-no-cause",
		breaks:  "a holder whose access token was revoked is told that no keep-alive was answered",
		promise: "liveness",
		changes: []change{{"client/loss.go", "	if reason == LostDeadline && s.refusal != nil {\n", "	if false {\n"}},
		caught:  []catcher{named(theClient, "TestRevokedTokenLosesItsGrantsInTimeAndSaysWhy")},
	},
	{
		name:    "old-refusal-is-the-cause-of-a-later-loss",
		breaks:  "a loss because of an outage is reported as one because of an access token that was refused before",
		promise: "liveness",
		changes: []change{{"client/session.go", "		s.failures, s.refusal = 0, nil\n", "		s.failures = 0\n"}},
		caught:  []catcher{named(theClient, "TestRefusedKeepAlivesAreForgottenWhenOneIsAnswered")},
	},
	{
		name:    "session-of-another-identity-is-used",
		breaks:  "a client whose access token has another name now goes on with a session that is not its own",
		promise: "liveness",
		changes: []change{{"client/session.go", "	s.retired = s.retired || foreign\n	s.mu.Unlock()\n	if foreign {\n", "	s.mu.Unlock()\n	if foreign && false {\n"}},
		caught:  []catcher{named(theClient, "TestAnotherIdentityOpensAnotherSession")},
	},
	{
		name:    "unlock-with-an-old-access-token-is-forgotten",
		breaks:  "a lock that is unlocked while the access token is refused stays held when there is another one",
		promise: "liveness",
		changes: []change{{"client/release.go", "		repeat, pause = true, max(retryLast, s.c.config.ttl/6)\n", "		repeat, pause = false, max(retryLast, s.c.config.ttl/6)\n"}},
		caught:  []catcher{named(theClient, "TestUnlockBeforeAnotherTokenIsDoneLater")},
	},
	{
		name:    "unknown-key-of-a-policy-is-ignored",
		breaks:  "a rule with a typing error in a file of policies is left out, and what it denies is allowed",
		promise: "S10",
		changes: []change{{"cmd/locknode/policy_file.go", "		case !ok:\n", "		case !ok && false:\n"}, {"cmd/locknode/policy_file.go", "			read(value)\n", "			if ok {\n				read(value)\n			}\n"}},
		caught:  []catcher{named(commands, "TestFaultsOfAPolicyFileAreNamedWithTheirLines")},
	},
	{
		name:    "deny-is-read-as-allow",
		breaks:  "a rule of a file of policies that denies is applied as one that allows",
		promise: "S10",
		changes: []change{{"cmd/locknode/policy_file.go", `			rule.Deny = key == "deny"`, `			rule.Deny = false && key == "deny"`}},
		caught:  []catcher{named(commands, "TestPolicyFileIsRead")},
	},
	{
		name:    "half-a-token-file-is-taken",
		breaks:  "an access token that is being written is taken for the whole one",
		promise: "liveness",
		changes: []change{{"cmd/locknode/access.go", "	if secret, _, err := readTokenFile(f.path); err == nil {\n", "	if secret, _, _ := readTokenFile(f.path); secret != \"\" {\n"}},
		caught:  []catcher{named(commands, "TestReplacedTokenFileIsReadAgain")},
	},
	{
		name:    "secret-is-written-over-a-file",
		breaks:  "the secret of a new access token is written over another file",
		promise: "S10",
		changes: []change{{"cmd/locknode/token.go", "os.O_WRONLY|os.O_CREATE|os.O_EXCL", "os.O_WRONLY|os.O_CREATE|os.O_TRUNC"}},
		caught:  []catcher{named(commands, "TestSecretIsNeverWrittenOverAFile")},
	},
}
