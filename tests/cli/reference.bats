#!/usr/bin/env bats
# docs/reference.md is what the program prints: a page that has fallen behind fails here.

@test "docs/reference.md is up to date" {
    run diff <("$ELBO" help --reference) "$ELBO_SOURCE/docs/reference.md"
    [ "$status" -eq 0 ]
}
