package playground

import "fmt"

// clientKeys are the keys of n clients. The first is the one of README's commands.
func clientKeys(n int) []string {
	names := []string{
		"alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "kim", "leo",
		"mia", "nils", "olga", "paul", "quinn", "rosa", "sam", "tina", "uma", "victor", "wendy", "xavier",
		"yara", "zoe", "ada", "ben", "clara", "dora", "emil", "fay", "gus", "hana", "iris", "jack",
		"kate", "liam", "maya", "nora", "omar", "pia", "ravi", "sara", "theo", "ursula", "vera", "will",
	}
	for i := len(names); i < n; i++ {
		names = append(names, fmt.Sprintf("client-%d", i+1))
	}
	return names[:n]
}
