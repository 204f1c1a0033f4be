"""The only room that knows Lightning: fitting by steps, predicting by batches."""
