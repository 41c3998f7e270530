"""Gold, stage 5: the processed rows of final batches → Delta tables to query and to report on."""
