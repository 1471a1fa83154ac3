// Command rules checks what no general linter knows about this repository: who may import whom, where the
// Kafka and etcd libraries may appear, that README's table of packages says what go.mod says, and that no path
// of somebody's machine was committed.
//
//	go run ./rules ..
package main

import (
	"fmt"
	"os"
)

func main() {
	root := ".."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	findings, err := check(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rules:", err)
		os.Exit(2)
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		fmt.Printf("rules: %d broken\n", len(findings))
		os.Exit(1)
	}
	fmt.Printf("rules: %d kept\n", len(rules))
}
