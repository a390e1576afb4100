// Says what Prometheus makes of label patterns: reads lines of JSON with a pattern and a text,
// writes them with a verdict, "match", "other" or "error".
//
// Only Go's own regexp is used, anchored as in Prometheus' model/labels. To judge the committed
// cases anew: go run main.go < verdicts.jsonl > new.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"
	"regexp"
	"regexp/syntax"
)

type sample struct {
	Pattern string `json:"pattern"`
	Text    string `json:"text"`
	Verdict string `json:"verdict"`
}

func verdict(pattern, text string) string {
	// Prometheus parses the bare pattern first, so that "a)(b" cannot use the anchors' group.
	if _, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err != nil {
		return "error"
	}
	anchored, err := regexp.Compile("^(?s:" + pattern + ")$")
	switch {
	case err != nil:
		return "error"
	case anchored.MatchString(text):
		return "match"
	default:
		return "other"
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	for lines.Scan() {
		var s sample
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			log.Fatal(err)
		}
		s.Verdict = verdict(s.Pattern, s.Text)
		if err := answers.Encode(s); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
