"""The same results from many machines. Ray Data places the work, retries what was lost and limits what waits."""
